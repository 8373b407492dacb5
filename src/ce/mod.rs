//! The Customer Edge (RFC 7599 §8.1, §8.2): NAPT44 into the port set, then translation.
use crate::napt::Timers;
use crate::reply::IcmpParams;
use crate::siit::TranslationParams;

/// What a CE is told beside its rules and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeParams {
    /// Translation.
    pub translation: TranslationParams,
    /// ICMP of our own.
    pub icmp: IcmpParams,
    /// Compare the whole source address of an FMR peer with what its rule would write. Default true.
    pub check_interface_id: bool,
    /// `napt.enabled`: off only where the customer has a full address or a prefix (RFC 7599 §8.2). Default on.
    pub napt: bool,
    /// Idle times of mappings.
    pub timers: Timers,
    /// Keys what is random.
    pub seed: u64,
}
