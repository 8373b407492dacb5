//! Addresses as strings of `0` and `1`: RFC 7597 §5 and RFC 6052 §2.2 drawn out.

use mapt::map::RuleSpec;

pub fn bits(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:08b}")).collect()
}

pub fn value(bits: &str) -> u128 {
    bits.chars().fold(0, |n, bit| n * 2 + u128::from(bit == '1'))
}

pub fn octets<const N: usize>(bits: &str) -> [u8; N] {
    assert_eq!(bits.len(), N * 8);
    std::array::from_fn(|i| value(&bits[i * 8..i * 8 + 8]) as u8)
}

fn padded(number: u16, len: usize) -> String {
    let all = format!("{number:016b}");
    all[16 - len..].to_string()
}

/// RFC 6052 §2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    prefix: String,
}

impl Embedding {
    pub fn new(prefix: &str) -> Embedding {
        let prefix: mapt::map::Ipv6Prefix = prefix.parse().unwrap();
        let all = bits(&prefix.addr().octets());
        Embedding { prefix: all[..usize::from(prefix.prefix_len())].to_string() }
    }

    /// The figure of RFC 6052 §2.2: which bits hold the IPv4 address.
    fn places(&self) -> Vec<usize> {
        match self.prefix.len() {
            32 => (32..64).collect(),
            40 => (40..64).chain(72..80).collect(),
            48 => (48..64).chain(72..88).collect(),
            56 => (56..64).chain(72..96).collect(),
            64 => (72..104).collect(),
            96 => (96..128).collect(),
            other => panic!("/{other}"),
        }
    }

    pub fn embed(&self, ipv4: [u8; 4]) -> [u8; 16] {
        let mut all: Vec<char> = format!("{:0<128}", self.prefix).chars().collect();
        for (place, bit) in self.places().into_iter().zip(bits(&ipv4).chars()) {
            all[place] = bit;
        }
        octets(&all.into_iter().collect::<String>())
    }

    pub fn extract(&self, addr: [u8; 16]) -> Option<[u8; 4]> {
        let all = bits(&addr);
        let inside: String = self.places().into_iter().map(|place| &all[place..=place]).collect();
        all.starts_with(&self.prefix).then(|| octets(&inside))
    }

    pub fn is_well_known(&self) -> bool {
        self.prefix == bits(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// A rule, its prefixes as strings of bits.
#[derive(Clone, Debug)]
pub struct Rule {
    pub v6: String,
    pub v4: String,
    pub ea: usize,
    a: u32,
    k: usize,
    psid: u16,
    pub forwarding: bool,
    pub dmr: Option<Embedding>,
}

impl Rule {
    pub fn new(spec: &RuleSpec) -> Rule {
        let (v6, v4) = (spec.rule_ipv6_prefix, spec.rule_ipv4_prefix);
        let v6 = bits(&v6.addr().octets())[..usize::from(v6.prefix_len())].to_string();
        let v4 = bits(&v4.addr().octets())[..usize::from(v4.prefix_len())].to_string();
        let ea = usize::from(spec.ea_len);
        let q = (v4.len() + ea).saturating_sub(32);
        Rule {
            k: if q > 0 { q } else { usize::from(spec.psid_len.unwrap_or(0)) },
            psid: spec.psid.unwrap_or(0),
            dmr: spec.dmr_ipv6_prefix.map(|dmr| Embedding::new(&dmr.prefix().to_string())),
            a: u32::from(spec.psid_offset),
            forwarding: spec.forwarding,
            v6,
            v4,
            ea,
        }
    }

    /// How many EA bits belong to the IPv4 address; the others are the PSID.
    fn suffix(&self) -> usize {
        self.ea.min(32 - self.v4.len())
    }

    /// Octets are bits of a prefix, an address, or a shared address.
    pub fn ipv4_len(&self) -> usize {
        self.v4.len() + self.suffix()
    }

    pub fn is_shared(&self) -> bool {
        self.k > 0
    }

    pub fn psid_len(&self) -> usize {
        self.k
    }

    /// Whether the PSID is in the EA bits.
    pub fn embeds_psid(&self) -> bool {
        self.ea > self.suffix()
    }

    pub fn explicit_psid(&self) -> u16 {
        self.psid
    }

    /// RFC 7597 §B.1 by division: the owner of a port of a shared address.
    pub fn psid_of(&self, port: u16) -> Option<u16> {
        let ratio = 1u32 << self.k;
        let run = 65536 / (1 << self.a) / ratio;
        if self.a > 0 && u32::from(port) < 65536 / (1 << self.a) {
            return None;
        }
        Some((u32::from(port) % (ratio * run) / run) as u16)
    }

    /// The port set, the slow way.
    pub fn ports(&self, psid: u16) -> Vec<u16> {
        (0..=65535).filter(|port| !self.is_shared() || self.psid_of(*port) == Some(psid)).collect()
    }

    /// RFC 7597 §5.2 figure 3 and §6; the IPv4 address is written whole (erratum 5225 to RFC 7599).
    pub fn address(&self, ipv4: [u8; 4], psid: u16) -> [u8; 16] {
        let v4 = bits(&ipv4);
        let psid = if self.embeds_psid() || !self.is_shared() { psid } else { self.psid };
        let mut front = self.v6.clone();
        front += &v4[self.v4.len()..self.ipv4_len()];
        front += &padded(psid, self.ea - self.suffix());
        while front.len() < 64 {
            front.push('0');
        }
        let interface = format!("{}{v4}{}", "0".repeat(16), padded(if self.is_shared() { psid } else { 0 }, 16));
        // RFC 7597 §6: a longer prefix overwrites the interface id.
        octets(&format!("{front}{}", &interface[front.len() - 64..]))
    }

    /// IPv4 address and PSID that the EA bits of an address say; an IPv4 prefix has its host bits in the interface id.
    pub fn read(&self, addr: [u8; 16]) -> ([u8; 4], u16) {
        let all = bits(&addr);
        let ea = &all[self.v6.len()..self.v6.len() + self.ea];
        let (suffix, psid) = ea.split_at(self.suffix());
        let host = &all[80 + self.ipv4_len()..112];
        let psid = if self.embeds_psid() {
            value(psid) as u16
        } else if self.is_shared() {
            self.psid
        } else {
            0
        };
        (octets(&format!("{}{suffix}{host}", self.v4)), psid)
    }
}
