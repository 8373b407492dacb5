//! Finding a rule: `RuleTable::by_ipv4` and `by_ipv6` for random flows over all rules, not one hot flow.
//!
//! `each`: flows one after the other, as a loop over a batch of packets sees them. `chained`: the next flow is known
//! only when the last one is found, so nothing overlaps: the time of one lookup from end to end.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mapt::map::{Dmr, Ipv4Prefix, Ipv6Prefix, Psid, Rule, RuleId, RuleSpec, RuleTable};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const SIZES: [u32; 3] = [1, 1_000, 100_000];
const FLOWS: usize = 1 << 16;

/// xorshift64*: the same flows in every run.
struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(n)) >> 64) as u64
    }
}

fn spec(index: u32, ipv6: (u64, u8), ipv4: (u32, u8), ea_len: u8) -> RuleSpec {
    RuleSpec {
        name: format!("rule-{index}"),
        rule_ipv6_prefix: Ipv6Prefix::truncating((u128::from(ipv6.0) << 64).into(), ipv6.1),
        rule_ipv4_prefix: Ipv4Prefix::truncating(ipv4.0.into(), ipv4.1),
        ea_len,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

/// Each rule a /24 and a /40, with a gap behind each; a sharing ratio of 256.
fn shared(index: u32) -> RuleSpec {
    spec(index, (0x2a00 << 48 | u64::from(index) << 25, 40), (0x0b00_0000 + (index << 9), 24), 16)
}

/// Each rule one CE: a PSID of a /32 that 256 rules share, and a /56, with a gap behind each.
fn one_to_one(index: u32) -> RuleSpec {
    let ipv4 = 0x0b00_0000 + (index >> 8 << 1);
    let spec = spec(index, (0x2a00 << 48 | u64::from(index) << 9, 56), (ipv4, 32), 0);
    RuleSpec { psid_len: Some(8), psid: Some((index & 0xff) as u16), ..spec }
}

/// Nested rules: four lengths in each family, each block of four inside the one before.
fn nested(index: u32) -> RuleSpec {
    let (block, level) = (index >> 2, index as u8 & 3);
    let (len6, len4) = (36 + 4 * level, 22 + 2 * level);
    spec(index, (0x2a00 << 48 | u64::from(block) << 28, len6), (0x0b00_0000 + (block << 10), len4), 40 - len4)
}

type Shape = (&'static str, fn(u32) -> RuleSpec);
const SHAPES: [Shape; 3] = [("shared-24", shared), ("one-to-one", one_to_one), ("nested", nested)];

fn table(rules: Vec<Rule>) -> RuleTable {
    let dmr = Dmr::new("64:ff9b:1:fffe::/96".parse().unwrap()).unwrap();
    RuleTable::new(rules, Some(dmr)).expect("no conflict")
}

fn rules(shape: fn(u32) -> RuleSpec, size: u32) -> Vec<Rule> {
    (0..size).map(|index| Rule::new(shape(index)).expect("a rule")).collect()
}

/// Random customers of random rules, with a random port of each.
fn flows(table: &RuleTable) -> (Vec<(Ipv4Addr, u16)>, Vec<Ipv6Addr>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let flow = |_| {
        let index = random.below(table.rules().len() as u64) as u32;
        let (rule, compiled) = (&table.rules()[index as usize], table.get(RuleId(index)));
        let host = random.below(1 << (32 - rule.spec().rule_ipv4_prefix.prefix_len())) as u32;
        let ipv4 = Ipv4Addr::from(u32::from(rule.spec().rule_ipv4_prefix.addr()) | host);
        let psid = rule.explicit_psid().unwrap_or(Psid(random.below(rule.sharing_ratio().into()) as u16));
        let ports = compiled.port_set(psid).expect("a PSID of the rule");
        let port = ports.nth(random.below(ports.count().into()) as u32).expect("a port");
        ((ipv4, port), compiled.compose(ipv4, psid).ipv6())
    };
    (0..FLOWS).map(flow).unzip()
}

fn lookups(c: &mut Criterion) {
    for (shape, spec) in SHAPES {
        for size in SIZES {
            let table = table(rules(spec, size));
            let (v4, v6) = flows(&table);
            println!("{shape}/{size}: {} octets a rule", table.lookup_size() / size as usize);
            let mut group = c.benchmark_group(shape);
            group.throughput(Throughput::Elements(1)).warm_up_time(Duration::from_secs(1)).sample_size(30);
            let mut at = 0;
            group.bench_function(BenchmarkId::new("by_ipv4-each", size), |b| {
                b.iter(|| {
                    at = (at + 1) % FLOWS;
                    let (ipv4, port) = v4[at];
                    black_box(table.by_ipv4(ipv4, Some(port)))
                })
            });
            group.bench_function(BenchmarkId::new("by_ipv4-chained", size), |b| {
                b.iter(|| {
                    let (ipv4, port) = v4[at];
                    let found = table.by_ipv4(ipv4, Some(port)).map_or(0, |(_, addr)| u128::from(addr.ipv6()));
                    at = (at + 1 + (black_box(found) >> 127) as usize) % FLOWS;
                })
            });
            group.bench_function(BenchmarkId::new("by_ipv6-each", size), |b| {
                b.iter(|| {
                    at = (at + 1) % FLOWS;
                    let id = table.by_ipv6(v6[at]);
                    black_box(id.map(|id| table.get(id).decompose(v6[at])))
                })
            });
            group.bench_function(BenchmarkId::new("by_ipv6-chained", size), |b| {
                b.iter(|| {
                    let found = table.by_ipv6(v6[at]).map_or(0, |id| u32::from(table.get(id).decompose(v6[at]).0));
                    at = (at + 1 + (black_box(found) >> 31) as usize) % FLOWS;
                })
            });
            group.finish();
        }
    }
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for (shape, spec) in SHAPES {
        let rules = rules(spec, 100_000);
        group.bench_function(BenchmarkId::new(shape, rules.len()), |b| {
            b.iter_batched(|| rules.clone(), table, BatchSize::PerIteration)
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, build);
criterion_main!(benches);
