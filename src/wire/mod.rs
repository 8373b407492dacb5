//! Packets as bytes: the buffer, checked views, checksum arithmetic.

pub mod buf;
pub mod checksum;

pub use buf::{PacketBuf, VnetHdr};
