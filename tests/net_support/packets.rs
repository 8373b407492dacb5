//! Raw senders and listeners, and the packets for them: written by hand from RFC 791, 768, 792 and 8200.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::super::io_support::Namespace;

/// Protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const ICMPV6: u8 = 58;
pub const UDP_LITE: u8 = 136;

/// Don't Fragment and More Fragments, as they stand in the field of the offset.
pub const DF: u16 = 0x4000;
pub const MF: u16 = 0x2000;

/// Sends whole packets; the kernel routes them, and fills in an IPv4 header checksum.
pub struct Sender {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
}

impl Sender {
    pub fn new(namespace: &Namespace) -> Sender {
        let open = |family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
        namespace.run(|| Sender { ipv4: open(AddressFamily::Inet), ipv6: open(AddressFamily::Inet6) })
    }

    pub fn send(&self, packet: &[u8]) {
        self.try_send(packet).unwrap_or_else(|errno| panic!("{} octets: {errno}", packet.len()));
    }

    pub fn try_send(&self, packet: &[u8]) -> Result<(), Errno> {
        let sent = if packet[0] >> 4 == 4 {
            let to = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap());
            let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
            sendto(self.ipv4.as_raw_fd(), packet, &to, MsgFlags::empty())?
        } else {
            let to = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
            let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
            sendto(self.ipv6.as_raw_fd(), packet, &to, MsgFlags::empty())?
        };
        assert_eq!(sent, packet.len());
        Ok(())
    }
}

/// Receives every IP packet that comes into a namespace, from the IP header on, as the link delivered it.
pub struct Listener {
    fd: OwnedFd,
    timeout: Duration,
}

impl Listener {
    pub fn ipv4(namespace: &Namespace) -> Listener {
        Listener::new(namespace, SockProtocol::EthIp)
    }

    pub fn ipv6(namespace: &Namespace) -> Listener {
        Listener::new(namespace, SockProtocol::EthIpv6)
    }

    fn new(namespace: &Namespace, protocol: SockProtocol) -> Listener {
        let fd = namespace
            .run(|| socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol).unwrap());
        // Thousands of small packets may wait until they are looked at.
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        let mut listener = Listener { fd, timeout: Duration::ZERO };
        listener.wait_at_most(Duration::from_secs(5));
        listener
    }

    pub fn wait_at_most(&mut self, timeout: Duration) {
        self.timeout = timeout;
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(timeout.as_millis() as i64)).unwrap();
    }

    /// The next packet, `None` after the time-out.
    pub fn next(&self) -> Option<Vec<u8>> {
        self.receive(MsgFlags::empty())
    }

    fn receive(&self, flags: MsgFlags) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
            Ok(n) => {
                buffer.truncate(n);
                Some(buffer)
            }
            Err(Errno::EAGAIN) => None,
            Err(Errno::EINTR) => self.receive(flags),
            Err(errno) => panic!("{errno}"),
        }
    }

    /// Packets of which `wanted` is true: `count` of them, and what else is there by then.
    pub fn collect(&self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let packet = self.next().unwrap_or_else(|| panic!("{} packets came, and not {count}", packets.len()));
            packets.extend(Some(packet).filter(|packet| wanted(packet)));
        }
        packets.extend(self.waiting().into_iter().filter(|packet| wanted(packet)));
        packets
    }

    /// Packets that are there now.
    pub fn waiting(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive(MsgFlags::MSG_DONTWAIT)).collect()
    }

    /// Packets up to the first one of which `last` is true, without it.
    pub fn until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let packet = self.next().unwrap_or_else(|| panic!("the last packet did not come, {} did", packets.len()));
            if last(&packet) {
                return packets;
            }
            packets.push(packet);
        }
    }
}

/// An IPv4 packet; `place` is the field of flags and fragment offset. The header checksum is the kernel's affair.
pub fn ipv4(src: &str, dst: &str, protocol: u8, id: u16, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + payload.len()) as u16).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(place.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(src.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend(dst.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
pub fn ipv6(src: &str, dst: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(src.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(dst.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(payload);
    packet
}

/// An ICMP echo message with its checksum.
pub fn echo(kind: u8, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A UDP datagram between IPv4 addresses; without `sum` the checksum is the 0 of RFC 768.
pub fn udp(src: &str, dst: &str, ports: (u16, u16), data: &[u8], sum: bool) -> Vec<u8> {
    let len = (8 + data.len()) as u16;
    let mut datagram = Vec::new();
    for word in [ports.0, ports.1, len, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(data);
    if sum {
        let sum = checksum(&[&pseudo(src, dst, UDP, datagram.len()), &datagram]);
        datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    }
    datagram
}

/// RFC 1071 over parts of which all but the last have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Fragments of an IPv4 payload, `room` octets of it each (a multiple of 8), in order.
pub fn fragments(src: &str, dst: &str, protocol: u8, id: u16, payload: &[u8], room: usize) -> Vec<Vec<u8>> {
    assert_eq!(room % 8, 0);
    let count = payload.len().div_ceil(room);
    let one = |(index, part): (usize, &[u8])| {
        let more = if index + 1 < count { MF } else { 0 };
        ipv4(src, dst, protocol, id, (index * room / 8) as u16 | more, part)
    };
    payload.chunks(room).enumerate().map(one).collect()
}

/// A TCP segment with ACK alone and its checksum.
pub fn tcp(src: &str, dst: &str, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = checksum(&[&pseudo(src, dst, TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A TCP segment with SYN alone.
pub fn syn(src: &str, dst: &str, ports: (u16, u16), seq: u32) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend([0, 0, 0, 0, 5 << 4, 0x02, 0x20, 0, 0, 0, 0, 0]);
    let sum = checksum(&[&pseudo(src, dst, TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A DCCP-Data packet (RFC 4340 §5.1, 48-bit sequence number) whose checksum covers all of it.
pub fn dccp(src: &str, dst: &str, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut packet = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    packet.extend([4, 0, 0, 0, 2 << 1 | 1, 0, 0, 0, 0, 1, 2, 3]);
    packet.extend(data);
    let sum = checksum(&[&pseudo(src, dst, DCCP, packet.len()), &packet]);
    packet[6..8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A UDP-Lite packet (RFC 3828 §3.1) whose checksum covers `coverage` octets of it, 8 or more.
pub fn udp_lite(src: &str, dst: &str, ports: (u16, u16), data: &[u8], coverage: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    for word in [ports.0, ports.1, coverage as u16, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(data);
    let sum = checksum(&[&pseudo(src, dst, UDP_LITE, packet.len()), &packet[..coverage]]);
    packet[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    packet
}

/// The pseudo-header of IPv4 (RFC 793 §3.1).
fn pseudo(src: &str, dst: &str, protocol: u8, len: usize) -> Vec<u8> {
    let addresses = [src, dst].map(|a| a.parse::<Ipv4Addr>().unwrap().octets()).concat();
    [&addresses[..], &[0, protocol], &(len as u16).to_be_bytes()].concat()
}
