//! `mapt translate`: the daemons' own engine on hex lines and captures, without interface or root.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::explain::Explainer;
use super::{capture, engine, files};
use crate::config::{Config, Role};
use crate::engine::{Engine, TransmitKind};
use crate::reply::{IcmpParams, Originate};
use crate::stats::DirectionSnapshot;
use crate::verdict::{DropReason, Verdict};
use crate::wire::PacketBuf;

/// What `mapt translate` is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct TranslateArgs {
    /// Configuration of a BR or CE
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Read packets from a pcap or pcapng capture instead of hex lines on stdin
    #[arg(long, value_name = "IN")]
    pub pcap: Option<PathBuf>,
    /// Write what leaves (packets and ICMP answers) to a pcap capture
    #[arg(long, value_name = "OUT")]
    pub write: Option<PathBuf>,
    /// Fix what is random: NAPT ports, identifications, the choice from a pool
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Limit ICMP answers as the daemon does
    #[arg(long)]
    pub rate_limit: bool,
    /// Tell in words what was decided, by which rule, with which numbers, and what a dropped packet would have needed
    #[arg(long)]
    pub explain: bool,
    /// Answer in JSON, as it does anyway without `--explain`; with it, each line has the sentences as `explain`
    #[arg(long)]
    pub json: bool,
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    verdict: &'static str,
    reason: Option<&'static str>,
    rule: Option<&'a str>,
    packets: Vec<String>,
    reply: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Vec<String>>,
}

/// Octets that left for one input.
struct Left {
    packets: Vec<Vec<u8>>,
    reply: Option<Vec<u8>>,
}

/// Why translation stopped, for a person.
pub type Failure = String;

/// The whole command. Returns its exit status.
pub fn main(args: &TranslateArgs, input: &mut dyn BufRead, output: &mut dyn Write, errors: &mut dyn Write) -> u8 {
    let result = match files::daemon(&args.config) {
        Ok(loaded) => run(loaded.value, args, input, output, errors),
        Err(findings) => Err(findings.to_string()),
    };
    // What was translated before a failure is an answer too.
    let result = result.and_then(|()| output.flush().map_err(|e| e.to_string()));
    let _ = output.flush();
    match result {
        Ok(()) => 0,
        Err(reason) => {
            let _ = writeln!(errors, "{reason}");
            1
        }
    }
}

/// Translates everything from `input` (or the capture), one JSON line or one paragraph an input.
pub fn run(
    config: Config,
    args: &TranslateArgs,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<(), Failure> {
    let config = configured(config, args);
    let mut session = Session {
        engine: engine::build(&config),
        packet: PacketBuf::new(),
        n: 0,
        explainer: args.explain.then(|| Explainer::new(config)),
        json: args.json || !args.explain,
    };
    match &args.pcap {
        Some(path) => from_capture(&mut session, path, args.write.as_deref(), output, errors)?,
        None => from_lines(&mut session, args.write.as_deref(), input, output)?,
    }
    let expired = session.expired();
    if expired > 0 {
        writeln!(errors, "{expired} held packets expired").map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn configured(mut config: Config, args: &TranslateArgs) -> Config {
    let (icmp, seed): (&mut IcmpParams, &mut u64) = match &mut config.role {
        Role::Br(params) => (&mut params.icmp, &mut params.seed),
        Role::Ce(params) => (&mut params.icmp, &mut params.seed),
    };
    if icmp.originate == Originate::Limited && !args.rate_limit {
        icmp.originate = Originate::On;
    }
    if let Some(wanted) = args.seed {
        *seed = wanted;
    }
    config
}

struct Session {
    engine: engine::Machine,
    packet: PacketBuf,
    n: u64,
    explainer: Option<Explainer>,
    /// JSON lines, not text for people.
    json: bool,
}

impl Session {
    /// Inputs held for nothing, up to the last one or beyond.
    fn expired(&self) -> u64 {
        let counters = self.engine.counters().snapshot();
        let one = |d: &DirectionSnapshot| d.held + d.dropped[DropReason::FragmentTimeout as usize].packets;
        counters.directions.iter().map(one).sum()
    }

    /// One input, one answer.
    fn input(&mut self, bytes: &[u8], at: Duration, output: &mut dyn Write) -> Result<Left, Failure> {
        self.tick(at);
        self.n += 1;
        self.packet.set(bytes);
        let verdict = self.engine.handle(&mut self.packet, at);
        let mut left = Left { packets: Vec::new(), reply: None };
        if verdict == Verdict::Forward {
            left.packets.push(self.packet.bytes().to_vec());
        }
        while let Some((kind, packet)) = self.engine.poll_transmit() {
            match kind {
                TransmitKind::Packet => left.packets.push(packet.bytes().to_vec()),
                TransmitKind::Reply => left.reply = Some(packet.bytes().to_vec()),
            }
        }
        let reply = left.reply.as_deref();
        let explain = self.explainer.as_mut().map(|explainer| explainer.explain(bytes, verdict, &left.packets, reply));
        if !self.json {
            let said = explain.unwrap_or_default();
            writeln!(output, "packet {}: {}\n", self.n, said.join("\n  ")).map_err(|e| e.to_string())?;
            return Ok(left);
        }
        let (word, reason) = match verdict {
            Verdict::Forward => ("forward", None),
            Verdict::Held => ("held", None),
            Verdict::Drop { reason, .. } => ("drop", Some(reason.name())),
        };
        let line = Line {
            n: self.n,
            verdict: word,
            reason,
            rule: self.engine.last_rule(),
            packets: left.packets.iter().map(|p| hex(p)).collect(),
            reply: reply.map(hex),
            explain,
        };
        serde_json::to_writer(&mut *output, &line).map_err(|e| e.to_string())?;
        output.write_all(b"\n").map_err(|e| e.to_string())?;
        Ok(left)
    }

    /// Lets expire what expires up to `now`, each thing at its own time.
    fn tick(&mut self, now: Duration) {
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= now) {
            self.engine.handle_timeout(now);
            // Late answers (RFC 5382 REQ-4) belong to no packet of this line; the counters tell of them.
            while self.engine.poll_transmit().is_some() {}
            // An engine that is still due has more than one round of work; one that stays due forever must not hang us.
            if self.engine.poll_timeout() == Some(due) && due < now {
                break;
            }
        }
    }
}

fn from_lines(
    session: &mut Session,
    write: Option<&Path>,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), Failure> {
    let mut writer = create(write, capture::Link::Raw)?;
    let mut at = Duration::ZERO;
    let mut text = String::new();
    for number in 1u64.. {
        text.clear();
        let read = input.read_line(&mut text).map_err(|e| format!("standard input, line {number}: {e}"))?;
        if read == 0 {
            break;
        }
        let line = text.trim();
        if line.is_empty() {
            continue;
        }
        let bytes = parse_line(line, &mut at).map_err(|e| format!("standard input, line {number}: {e}"))?;
        let left = session.input(&bytes, at, output)?;
        store(writer.as_mut(), at, &[], &left)?;
    }
    Ok(())
}

fn from_capture(
    session: &mut Session,
    path: &Path,
    write: Option<&Path>,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<(), Failure> {
    let named = |e: capture::CaptureError| format!("{}: {e}", path.display());
    let mut reader = capture::Reader::open(path).map_err(named)?;
    let mut writer = create(write, reader.link())?;
    let (mut first, mut last, mut skipped) = (None, Duration::ZERO, 0u64);
    while let Some(frame) = reader.next_frame() {
        let frame = frame.map_err(named)?;
        let Some((head, packet)) = frame.link.split(&frame.bytes) else {
            skipped += 1;
            continue;
        };
        // Captures of several queues may step back a little; the engine's clock never does.
        let start = *first.get_or_insert(frame.at);
        last = last.max(frame.at.saturating_sub(start));
        let left = session.input(packet, last, output)?;
        store(writer.as_mut(), frame.at, head, &left)?;
    }
    if skipped > 0 {
        writeln!(errors, "{skipped} frames without an IP packet skipped").map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn create(path: Option<&Path>, link: capture::Link) -> Result<Option<capture::Writer>, Failure> {
    path.map(|path| capture::Writer::create(path, link).map_err(|e| format!("{}: {e}", path.display()))).transpose()
}

fn store(writer: Option<&mut capture::Writer>, at: Duration, head: &[u8], left: &Left) -> Result<(), Failure> {
    let Some(writer) = writer else { return Ok(()) };
    for packet in left.packets.iter().chain(&left.reply) {
        writer.write(at, head, packet).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `45000…` or `{"at":seconds,"hex":"45000…"}`. Moves `at`, which a line without time keeps.
fn parse_line(line: &str, at: &mut Duration) -> Result<Vec<u8>, Failure> {
    if !line.starts_with('{') {
        return unhex(line);
    }
    let value: Value = serde_json::from_str(line).map_err(|e| format!("no JSON: {e}"))?;
    let Value::Object(mut object) = value else { return Err("expected a JSON object".into()) };
    let hex = object.remove("hex").ok_or(r#"expected {"at":seconds,"hex":"…"}, "hex" is missing"#)?;
    if let Some(when) = object.remove("at") {
        let seconds = when.as_f64().ok_or(format!(r#""at": {when} is no number of seconds"#))?;
        let when = Duration::try_from_secs_f64(seconds).map_err(|e| format!(r#""at": {seconds}: {e}"#))?;
        if when < *at {
            return Err(format!(r#""at": {seconds} is before the line before it ({} s)"#, at.as_secs_f64()));
        }
        *at = when;
    }
    if let Some(key) = object.keys().next() {
        return Err(format!(r#"unknown key "{key}"; expected "at" and "hex""#));
    }
    unhex(hex.as_str().ok_or(format!(r#""hex": {hex} is no text"#))?)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let mut digits = Vec::with_capacity(text.len());
    for (index, c) in text.chars().enumerate().filter(|(_, c)| !c.is_ascii_whitespace()) {
        let digit = c.to_digit(16).ok_or(format!("character {} is {c:?}, expected a hexadecimal digit", index + 1))?;
        digits.push(digit as u8);
    }
    if digits.len() % 2 != 0 {
        return Err(format!("{} hexadecimal digits are no whole number of octets", digits.len()));
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut at = Duration::ZERO;
        assert_eq!(parse_line("45 00aB", &mut at), Ok(vec![0x45, 0, 0xab]));
        assert_eq!(parse_line(r#"{"at":1.5,"hex":"60"}"#, &mut at), Ok(vec![0x60]));
        assert_eq!(at, Duration::from_millis(1500));
        assert_eq!(parse_line(r#"{"hex":"60"}"#, &mut at), Ok(vec![0x60]));
        assert_eq!(at, Duration::from_millis(1500));
        for bad in
            ["4", "4g", r#"{"at":1,"hex":"60"}"#, r#"{"at":-1,"hex":"60"}"#, r#"{"hex":1}"#, r#"{"x":1}"#, "{", "{}"]
        {
            assert!(parse_line(bad, &mut at).is_err(), "{bad}");
        }
    }

    #[test]
    fn frames_with_vlan_tags() {
        let mut frame = vec![2; 12];
        frame.extend([0x81, 0x00, 0, 5, 0x08, 0x00, 0x45, 1]);
        let (head, packet) = capture::Link::Ethernet.split(&frame).unwrap();
        assert_eq!(packet, [0x45, 1]);
        let joined = capture::Link::Ethernet.join(head, &[0x60, 2]);
        assert_eq!(joined[12..], [0x81, 0x00, 0, 5, 0x86, 0xdd, 0x60, 2]);
        assert!(capture::Link::Ethernet.split(&[0; 13]).is_none());
        let mut arp = vec![2; 12];
        arp.extend([0x08, 0x06, 0, 1]);
        assert!(capture::Link::Ethernet.split(&arp).is_none());
    }
}
