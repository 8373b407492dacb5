//! Packets as bytes: the buffer, checked headers, checksum arithmetic, what a device's offloads mean.

pub mod buf;
pub mod checksum;
pub mod ip;
pub mod queue;
pub mod segment;
pub mod transport;

pub use buf::{PacketBuf, VnetHdr};
