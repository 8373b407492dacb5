//! The TUN device: opened with a virtio header and segmentation offloads, one file descriptor for each queue.
//!
//! The opener is our own. `tun-rs` does the same ioctls, but not what the start has to be sure of: it cannot ask
//! with `IFF_TUN_EXCL` (without it a second process quietly becomes one more queue of a running multi-queue
//! device and takes a share of its packets), it makes a missing `/dev/net/tun` by itself, it fixes the header
//! length of an adopted device to nothing, and it does not ask for ECN.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use crate::wire::PacketBuf;
use crate::wire::buf::VnetHdr;

const DEVICE: &str = "/dev/net/tun";
/// The most octets in an interface name.
pub const MAX_NAME: usize = 15;
/// The most queues that are opened on one device.
pub const MAX_QUEUES: u16 = 16;

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// It could be no interface's name.
    #[error(
        "`{0}` cannot be an interface name: 1 to 15 octets without `/`, `:`, `%` and white space are expected (tun.name)"
    )]
    Name(String),
    /// No /dev/net/tun.
    #[error(
        "there is no {DEVICE}: load the module with `modprobe tun`, or in a container pass the device with `--device {DEVICE}`"
    )]
    NoDriver,
    /// /dev/net/tun cannot be opened.
    #[error("{DEVICE} cannot be opened ({0}): run as root, or let the service's user read and write it")]
    Driver(Errno),
    /// CAP_NET_ADMIN is missing.
    #[error(
        "TUN device `{0}` cannot be made: the capability CAP_NET_ADMIN is missing: run as root, or with \
         `AmbientCapabilities=CAP_NET_ADMIN` in the unit, or with `setpriv --inh-caps=+net_admin --ambient-caps=+net_admin`"
    )]
    Capability(String),
    /// An interface of that name exists.
    #[error("interface `{0}` exists already")]
    Exists(String),
    /// It is no TUN device.
    #[error(
        "interface `{name}` exists already and is no TUN device ({kind}): choose another `tun.name`, or remove it with `ip link delete {name}`"
    )]
    NotTun {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Another process has it open.
    #[error(
        "TUN device `{0}` is in use by another process: stop that one (`fuser -v {DEVICE}` lists them), or give this instance another `instance` or `tun.name`"
    )]
    Busy(String),
    /// A persistent device without what is needed.
    #[error(
        "the persistent TUN device `{name}` cannot be used ({errno}): remove it with `ip link delete {name}`, or make it with `ip tuntap add dev {name} mode tun multi_queue vnet_hdr`"
    )]
    Persistent {
        /// Its name.
        name: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The rest.
    #[error("TUN device `{name}`: {what}: {errno}")]
    Kernel {
        /// Its name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// Which offloads the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads(libc::c_uint);

impl Offloads {
    const CSUM: libc::c_uint = libc::TUN_F_CSUM;
    const TSO: libc::c_uint = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    const USO: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    /// What is asked for, best first. USO came with Linux 6.2.
    const WISHES: [libc::c_uint; 4] = [
        Self::CSUM | Self::TSO | libc::TUN_F_TSO_ECN | Self::USO,
        Self::CSUM | Self::TSO | libc::TUN_F_TSO_ECN,
        Self::CSUM | Self::TSO,
        0,
    ];

    /// TCP segments of up to 64 KB, either family.
    pub fn tso(self) -> bool {
        self.0 & Self::TSO == Self::TSO
    }

    /// UDP segments of up to 64 KB, either family.
    pub fn uso(self) -> bool {
        self.0 & Self::USO == Self::USO
    }
}

impl std::fmt::Display for Offloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.tso(), self.uso()) {
            (true, true) => f.write_str("checksum, TSO, USO"),
            (true, false) => f.write_str("checksum, TSO"),
            _ => f.write_str("no offloads"),
        }
    }
}

/// A persistent TUN device as it was found, with no process attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistent {
    /// Made with `multi_queue`; else it has one queue, whatever is asked for.
    pub multi_queue: bool,
}

/// All queues of a device that is ours.
#[derive(Debug)]
pub struct Device {
    /// Interface name.
    pub name: String,
    /// One for each thread; never empty.
    pub queues: Vec<Tun>,
    /// What the kernel took.
    pub offloads: Offloads,
    /// Whether it outlives us.
    pub persistent: bool,
}

impl Device {
    /// Makes a new device with 1..=16 queues; it goes with the last file descriptor.
    ///
    /// `TunError::Exists` where the name is taken, by whatever it may be.
    pub fn create(name: &str, queues: u16) -> Result<Device, TunError> {
        Self::open(name, queues, None)
    }

    /// Takes a persistent device that no process holds.
    pub fn adopt(name: &str, queues: u16, found: Persistent) -> Result<Device, TunError> {
        Self::open(name, queues, Some(found))
    }

    fn open(name: &str, queues: u16, found: Option<Persistent>) -> Result<Device, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let multi_queue = found.map_or(queues > 1, |f| f.multi_queue);
        let queues = if multi_queue { queues.clamp(1, MAX_QUEUES) } else { 1 };
        let mut fds = Vec::with_capacity(usize::from(queues));
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        for queue in 0..queues {
            let new = found.is_none() && queue == 0;
            let fd = open_driver()?;
            set_iff(&fd, name, if new { flags | libc::IFF_TUN_EXCL } else { flags }).map_err(|errno| {
                let name = name.to_owned();
                match errno {
                    Errno::EPERM => TunError::Capability(name),
                    Errno::EBUSY if new => TunError::Exists(name),
                    Errno::EBUSY => TunError::Busy(name),
                    Errno::EINVAL if found.is_some() => TunError::Persistent { name, errno },
                    errno => TunError::Kernel { name, what: "TUNSETIFF", errno },
                }
            })?;
            fds.push(Tun { fd });
        }
        // Both are settings of the device, not of a queue.
        let fd = &fds[0].fd;
        set_header_len(fd).map_err(|errno| TunError::Kernel {
            name: name.to_owned(),
            what: "TUNSETVNETHDRSZ",
            errno,
        })?;
        let mut refused = Errno::EINVAL;
        let offloads = Offloads::WISHES.into_iter().find(|wish| match set_offload(fd, *wish) {
            Ok(()) => true,
            Err(errno) => {
                refused = errno;
                false
            }
        });
        let Some(offloads) = offloads else {
            return Err(TunError::Kernel { name: name.to_owned(), what: "TUNSETOFFLOAD", errno: refused });
        };
        Ok(Device { name: name.to_owned(), queues: fds, offloads: Offloads(offloads), persistent: found.is_some() })
    }
}

/// One queue of a TUN device. Reads and writes do not wait.
#[derive(Debug)]
pub struct Tun {
    fd: File,
}

impl Tun {
    /// Reads one packet with its virtio header, in one system call. `false` where the device gave less than a
    /// header; `EAGAIN` where nothing waits; `EBADFD` where the device is gone.
    #[inline]
    pub fn recv(&self, packet: &mut PacketBuf) -> nix::Result<bool> {
        let n = nix::unistd::read(&self.fd, packet.read_area())?;
        Ok(packet.commit_read(n))
    }

    /// Hands one packet with its virtio header to the kernel, in one system call.
    #[inline]
    pub fn send(&self, packet: &mut PacketBuf) -> nix::Result<()> {
        nix::unistd::write(&self.fd, packet.write_area()).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether an interface can have this name. What passes is also safe as a component of a path.
pub fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

fn open_driver() -> Result<File, TunError> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(DEVICE).map_err(
        |error: io::Error| match Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => TunError::NoDriver,
            errno => TunError::Driver(errno),
        },
    )
}

#[allow(unsafe_code)]
mod ioctl {
    //! linux/if_tun.h. The request codes of TUNSETIFF and TUNSETOFFLOAD say `int`, whatever they take.
    use nix::libc;

    nix::ioctl_readwrite_bad!(tunsetiff, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_int_bad!(tunsetoffload, nix::request_code_write!(b'T', 208, size_of::<libc::c_int>()));
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
}

#[allow(unsafe_code)]
fn set_iff(fd: &File, name: &str, flags: libc::c_int) -> nix::Result<()> {
    // SAFETY: ifreq is plain integers, arrays and a union of such: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and `request` outlives the call, which reads and writes one ifreq.
    unsafe { ioctl::tunsetiff(fd.as_raw_fd(), &mut request) }.map(drop)
}

#[allow(unsafe_code)]
fn set_offload(fd: &File, offloads: libc::c_uint) -> nix::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { ioctl::tunsetoffload(fd.as_raw_fd(), offloads as libc::c_int) }.map(drop)
}

#[allow(unsafe_code)]
fn set_header_len(fd: &File) -> nix::Result<()> {
    let len = VnetHdr::LEN as libc::c_int;
    // SAFETY: the descriptor is open and `len` outlives the call, which reads one int.
    unsafe { ioctl::tunsetvnethdrsz(fd.as_raw_fd(), &len) }.map(drop)
}
