//! Internet checksum arithmetic (RFC 1071, RFC 1624).
