//! The Border Relay (RFC 7599 §8.3, §8.4): stateless translation.
use crate::reply::IcmpParams;
use crate::siit::TranslationParams;

/// What a BR is told beside its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address with what its rule would write (RFC 7599 §8.3). Default true.
    pub check_interface_id: bool,
    /// Keys what is random.
    pub seed: u64,
}
