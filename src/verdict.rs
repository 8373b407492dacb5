//! What became of a packet, and why: one verdict, one reason, one sentence.

/// The direction of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// IPv4 came in, IPv6 goes out.
    V4ToV6,
    /// IPv6 came in, IPv4 goes out.
    V6ToV4,
}

impl Direction {
    /// Both directions, in the order of the counters.
    pub const ALL: [Direction; 2] = [Direction::V4ToV6, Direction::V6ToV4];

    /// `v4_to_v6` or `v6_to_v4`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::V4ToV6 => "v4_to_v6",
            Direction::V6ToV4 => "v6_to_v4",
        }
    }
}

/// What an engine did with one input packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The buffer holds the first output; further ones come from `poll_transmit`.
    Forward,
    /// Kept for later; it leaves by `poll_transmit` or is counted as dropped when it expires.
    Held,
    /// The buffer is what it was.
    Drop {
        /// Why.
        reason: DropReason,
        /// Whether an ICMP answer waits in `poll_transmit`.
        reply: bool,
    },
}

/// The ICMP error that a drop earns its sender: type and code, by the family in which the packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// ICMPv4 type and code, for a packet that came as IPv4.
    pub icmpv4: Option<(u8, u8)>,
    /// ICMPv6 type and code, for a packet that came as IPv6.
    pub icmpv6: Option<(u8, u8)>,
}

impl Answer {
    const SILENT: Answer = Answer { icmpv4: None, icmpv6: None };

    const fn v4(kind: u8, code: u8) -> Answer {
        Answer { icmpv4: Some((kind, code)), icmpv6: None }
    }

    const fn v6(kind: u8, code: u8) -> Answer {
        Answer { icmpv4: None, icmpv6: Some((kind, code)) }
    }

    const fn both(v4: (u8, u8), v6: (u8, u8)) -> Answer {
        Answer { icmpv4: Some(v4), icmpv6: Some(v6) }
    }
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $section:literal $answer:expr, $sentence:literal;)*) => {
        /// Why a packet was dropped. The table in `verdict.rs` is the only list of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in counters, JSON and logs.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// The reason in words, for an operator.
            pub const fn sentence(self) -> &'static str {
                match self { $(DropReason::$variant => $sentence,)* }
            }

            /// The section that asks for the drop.
            pub const fn section(self) -> &'static str {
                match self { $(DropReason::$variant => $section,)* }
            }

            /// The ICMP error that the sender is told, where the RFC gives one.
            pub const fn answer(self) -> Answer {
                match self { $(DropReason::$variant => $answer,)* }
            }
        }
    };
}

drop_reasons! {
    NotIp "not-ip" "RFC 791 §3.1" Answer::SILENT,
        "The packet is neither IPv4 nor IPv6.";
    HeaderTruncated "header-truncated" "RFC 1122 §3.2.1" Answer::SILENT,
        "The packet is shorter than the headers that it announces.";
    LengthMismatch "length-mismatch" "RFC 1122 §3.2.1" Answer::SILENT,
        "The length field of the header and the octets that are there disagree.";
    Ipv4HeaderChecksum "ipv4-header-checksum" "RFC 1122 §3.2.1.2" Answer::SILENT,
        "The IPv4 header checksum is wrong.";
    OffloadMismatch "offload-mismatch" "virtio 1.2 §5.1.6" Answer::SILENT,
        "The offload request of the device does not fit the packet.";
    SourceIllegal "source-illegal" "RFC 7915 §4.1" Answer::SILENT,
        "The source address may never be a source on a link (unspecified, loopback, multicast, class E, link-local).";
    DestinationIllegal "destination-illegal" "RFC 1122 §3.2.1.3" Answer::SILENT,
        "The destination address is no single host that a translator may reach.";
    SourceRoute "source-route" "RFC 7915 §4.1" Answer::v4(3, 5),
        "The IPv4 header has an unexpired source route.";
    RoutingHeader "routing-header" "RFC 7915 §5.1" Answer::v6(4, 0),
        "An IPv6 Routing header has segments left.";
    ExtensionHeader "extension-header" "RFC 7915 §5.1.1" Answer::SILENT,
        "An IPv6 extension header stands where it cannot be translated.";
    FragmentWithoutPort "fragment-without-port" "RFC 7599 §10.2" Answer::SILENT,
        "A later fragment has no port, the address is shared, and early fragments are not held.";
    FragmentedIcmp "fragmented-icmp" "RFC 7915 §1.2" Answer::SILENT,
        "Fragmented ICMP is not translated.";
    FragmentOverlap "fragment-overlap" "RFC 1858 §4, RFC 5722 §4" Answer::SILENT,
        "The fragment overlaps the first one, or is a second first one of the same packet.";
    FragmentTableFull "fragment-table-full" "RFC 7599 §10.2, RFC 4787 REQ-14" Answer::SILENT,
        "The fragment came before the first one, and there was no room to hold it, or to hold it any longer.";
    FragmentTimeout "fragment-timeout" "RFC 7599 §10.2, RFC 6146 §4" Answer::SILENT,
        "The fragment was held until it was too old: the first one of its packet never came.";
    FragmentIllegal "fragment-illegal" "RFC 1858 §2.1" Answer::SILENT,
        "The fragment is empty, reaches beyond 65,535 octets, is no multiple of 8, or hides its transport header.";
    ProtocolWithoutPort "protocol-without-port" "RFC 7599 §8.4" Answer::both((3, 13), (1, 1)),
        "The transport protocol has no port, and the address is shared.";
    ProtocolIllegal "protocol-illegal" "RFC 7915 §4.1" Answer::SILENT,
        "The protocol number belongs to the other IP version.";
    IcmpType "icmp-type" "RFC 7915 §4.2, §5.2" Answer::SILENT,
        "This ICMP type and code has no counterpart in the other IP version.";
    IcmpChecksum "icmp-checksum" "RFC 5508 REQ-3" Answer::SILENT,
        "The checksum of the ICMP error is wrong.";
    IcmpInner "icmp-inner" "RFC 7915 §4.3, §5.3" Answer::SILENT,
        "The packet inside the ICMP error is broken, too short, or is itself an ICMP error.";
    UdpChecksumZero "udp-checksum-zero" "RFC 7915 §4.5, RFC 8200 §8.1" Answer::SILENT,
        "The UDP checksum is zero and cannot or shall not be computed.";
    TooBig "too-big" "RFC 7915 §4.1, §5.1.1" Answer::both((3, 4), (2, 0)),
        "The translated packet is larger than the next hop's MTU and must not be fragmented.";
    TooLongForIpv4 "too-long-for-ipv4" "RFC 791 §3.1" Answer::SILENT,
        "The translated packet would be longer than 65,535 octets.";
    HopLimit "hop-limit" "RFC 7915 §4.1, §5.1" Answer::both((11, 0), (3, 0)),
        "The TTL or hop limit ran out.";
    NoRule "no-rule" "RFC 7599 §8.3, §8.4" Answer::both((3, 13), (1, 1)),
        "No mapping rule covers the customer's address.";
    PortExcluded "port-excluded" "RFC 7597 §5.1" Answer::both((3, 13), (1, 5)),
        "The port lies in the range that no PSID owns.";
    PsidUnassigned "psid-unassigned" "RFC 7599 §12.1" Answer::both((3, 13), (1, 5)),
        "The port belongs to a PSID of this address that no rule assigns.";
    PortOutsideSet "port-outside-set" "RFC 7599 §8.2, §8.3" Answer::v6(1, 5),
        "The port is not in the port set of the address that uses it.";
    DestinationPortOutsideSet "destination-port-outside-set" "RFC 7599 §8.2" Answer::SILENT,
        "The destination port is not in this customer's port set.";
    SourceNotOurs "source-not-ours" "RFC 7599 §8.1" Answer::v4(3, 13),
        "The IPv4 source is not in the customer's address or prefix, and NAPT is off.";
    SourceMismatch "source-mismatch" "RFC 7599 §8.3" Answer::v6(1, 5),
        "The source is not the MAP address that its rule gives this IPv4 address and port.";
    DestinationNotOurs "destination-not-ours" "RFC 7599 §8.2, §8.3" Answer::SILENT,
        "The destination is neither a MAP address of this CE nor inside the DMR prefix of this BR.";
    SourceNotMap "source-not-map" "RFC 7599 §8.2" Answer::SILENT,
        "The IPv6 source is in no forwarding rule and not inside the DMR prefix.";
    AddressNotGlobal "address-not-global" "RFC 6052 §3.1" Answer::both((3, 13), (1, 1)),
        "The Well-Known Prefix must not carry a non-global IPv4 address.";
    Unprovisioned "unprovisioned" "RFC 7597 §7.1" Answer::both((3, 13), (1, 1)),
        "The CE has no End-user IPv6 prefix or no rule for it.";
    NaptNoMapping "napt-no-mapping" "RFC 5508 REQ-4, RFC 4787 §5" Answer::SILENT,
        "No host of the home has a mapping for this port.";
    NaptFiltered "napt-filtered" "RFC 4787 §5, RFC 5382 §4.3" Answer::SILENT,
        "The port is in use, but not towards whoever sent this.";
    NaptExhausted "napt-exhausted" "RFC 5508 REQ-8" Answer::v4(3, 13),
        "Every port of the customer's set is in use towards this destination, or the NAPT has all the flows it may.";
    NaptUnsupported "napt-unsupported" "RFC 7599 §8.1" Answer::v4(3, 13),
        "The protocol has no port that NAPT44 could translate.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_kebab_case_and_sentences_end() {
        let mut names = HashSet::new();
        for reason in DropReason::ALL {
            assert!(names.insert(reason.name()), "{} twice", reason.name());
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(reason.sentence().ends_with('.'), "{}", reason.name());
            assert!(reason.section().contains('§') || reason.section().contains("REQ"), "{}", reason.name());
        }
    }

    #[test]
    fn discriminants_index_the_table() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
