//! Captures: pcap and pcapng in, pcap out; raw IP and Ethernet link types.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// Why a capture could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither pcap nor pcapng, or broken.
    #[error("no pcap or pcapng capture: {0}")]
    Format(#[from] PcapError),
    /// A link type without IP packets that we could find.
    #[error("link type {0:?}: only raw IP and Ethernet captures can be translated")]
    LinkType(DataLink),
}

/// Where the IP packet of a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The frame is the IP packet.
    Raw,
    /// Ethernet, with or without VLAN tags.
    Ethernet,
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

impl Link {
    fn of(datalink: DataLink) -> Result<Link, CaptureError> {
        match datalink {
            DataLink::ETHERNET => Ok(Link::Ethernet),
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => Ok(Link::Raw),
            // LINKTYPE_RAW as some systems number it.
            DataLink::Unknown(12 | 14) => Ok(Link::Raw),
            other => Err(CaptureError::LinkType(other)),
        }
    }

    /// Splits a frame into what stands before the IP packet and the packet; `None` where it carries no IP.
    pub fn split(self, frame: &[u8]) -> Option<(&[u8], &[u8])> {
        match self {
            Link::Raw => Some((&[], frame)),
            Link::Ethernet => {
                let mut at = 12;
                // 802.1Q and 802.1ad tags are 4 octets each.
                while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) {
                    at += 4;
                }
                let kind = frame.get(at..at + 2)?;
                let is_ip = kind == ETHERTYPE_IPV4 || kind == ETHERTYPE_IPV6;
                is_ip.then(|| frame.split_at(at + 2))
            }
        }
    }

    /// Puts `packet` into a frame like the one whose head was `head`.
    pub fn join(self, head: &[u8], packet: &[u8]) -> Vec<u8> {
        let mut frame = head.to_vec();
        if self == Link::Ethernet && frame.len() >= 14 {
            let kind = if packet.first().is_some_and(|b| b >> 4 == 6) { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let at = frame.len() - 2;
            frame[at..].copy_from_slice(&kind);
        }
        frame.extend(packet);
        frame
    }
}

/// One frame of a capture.
pub struct Frame {
    /// When, since the epoch of the capture.
    pub at: Duration,
    /// Its link type.
    pub link: Link,
    /// The octets that were captured.
    pub bytes: Vec<u8>,
}

/// A capture being read.
pub enum Reader {
    /// The classic format.
    Pcap(Box<PcapReader<BufReader<File>>>, Link),
    /// The next generation.
    PcapNg(Box<PcapNgReader<BufReader<File>>>),
}

impl Reader {
    /// Opens a capture of either format.
    pub fn open(path: &Path) -> Result<Reader, CaptureError> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        let known = file.read_exact(&mut magic).is_ok();
        file.rewind()?;
        let file = BufReader::new(file);
        if known && magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            return Ok(Reader::PcapNg(Box::new(PcapNgReader::new(file)?)));
        }
        let reader = PcapReader::new(file)?;
        let link = Link::of(reader.header().datalink)?;
        Ok(Reader::Pcap(Box::new(reader), link))
    }

    /// The link type of what is written: that of the capture; raw IP for a pcapng, which may mix them.
    pub fn link(&self) -> Link {
        match self {
            Reader::Pcap(_, link) => *link,
            Reader::PcapNg(_) => Link::Raw,
        }
    }

    /// The next frame, `None` at the end.
    pub fn next_frame(&mut self) -> Option<Result<Frame, CaptureError>> {
        match self {
            Reader::Pcap(reader, link) => {
                let link = *link;
                reader.next_packet().map(|packet| {
                    let packet = packet?;
                    Ok(Frame { at: packet.timestamp, link, bytes: packet.data.into_owned() })
                })
            }
            Reader::PcapNg(reader) => loop {
                let (at, interface, bytes) = match reader.next_block()? {
                    Err(error) => return Some(Err(error.into())),
                    Ok(Block::EnhancedPacket(p)) => (p.timestamp, p.interface_id, p.data.into_owned()),
                    Ok(Block::SimplePacket(p)) => (Duration::ZERO, 0, p.data.into_owned()),
                    Ok(_) => continue,
                };
                let datalink = reader.interfaces().get(interface as usize).map(|i| i.linktype);
                let link = Link::of(datalink.unwrap_or(DataLink::NULL));
                return Some(link.map(|link| Frame { at, link, bytes }));
            },
        }
    }
}

/// A capture being written.
pub struct Writer {
    inner: PcapWriter<BufWriter<File>>,
    link: Link,
}

impl Writer {
    /// Creates or overwrites `path`.
    pub fn create(path: &Path, link: Link) -> Result<Writer, CaptureError> {
        let datalink = if link == Link::Ethernet { DataLink::ETHERNET } else { DataLink::RAW };
        let header =
            PcapHeader { datalink, ts_resolution: TsResolution::NanoSecond, snaplen: 262_144, ..PcapHeader::default() };
        Ok(Writer { inner: PcapWriter::with_header(BufWriter::new(File::create(path)?), header)?, link })
    }

    /// Appends an IP packet behind the frame head that its input had.
    pub fn write(&mut self, at: Duration, head: &[u8], packet: &[u8]) -> Result<(), CaptureError> {
        let frame = match self.link {
            Link::Raw => packet.to_vec(),
            link => link.join(head, packet),
        };
        self.inner.write_packet(&PcapPacket::new(at, frame.len() as u32, &frame))?;
        Ok(())
    }
}
