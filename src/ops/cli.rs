//! The operator's tool: its arguments, and who does the work. Printing is left to the program.
use super::{check, derive, show, whois};
use crate::map::Ipv6Prefix;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What a command has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The answer.
    pub stdout: String,
    /// Reasons and warnings.
    pub stderr: String,
    /// 0: yes or done, 1: no or invalid.
    pub status: u8,
}

impl Output {
    /// A refusal with its reason.
    pub fn no(reason: &str) -> Self {
        let mut out = Output { status: 1, ..Output::default() };
        out.say(reason);
        out
    }

    /// Adds lines to the answer.
    pub fn print(&mut self, text: &str) {
        self.stdout.push_str(text.trim_end());
        self.stdout.push('\n');
    }

    /// Adds one line of JSON to the answer.
    pub fn json(&mut self, value: &impl serde::Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.print(&text),
            Err(error) => self.say(&format!("no JSON: {error}")),
        }
    }

    /// Adds lines to the reasons and warnings.
    pub fn say(&mut self, text: &str) {
        self.stderr.push_str(text.trim_end());
        self.stderr.push('\n');
    }
}

/// The commands that need no interface, no packet and no daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check or show the mapping rules of a file
    #[command(subcommand)]
    Rules(Rules),
    /// What a CE with this End-user IPv6 prefix gets: IPv4 address, PSID, ports, MAP address
    Derive(Derive),
    /// Which customer has this IPv4 address and port, or this IPv6 address
    Whois(Whois),
}

/// Acts on the rules of a file.
#[derive(Debug, Subcommand)]
pub enum Rules {
    /// Check a file and report all errors at once, each with its line
    Check(OfFile),
    /// Show the rules: what a CE gets of each, and where the bits stand
    Show(OfFile),
}

/// A file and the form of the answer.
#[derive(Args, Debug)]
pub struct OfFile {
    /// Rule set (rules.yaml), or a daemon's file (br.yaml, ce.yaml)
    pub file: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `derive`.
#[derive(Args, Debug)]
pub struct Derive {
    #[command(flatten)]
    of: OfFile,
    /// The End-user IPv6 prefix, such as 2001:db8:12:3400::/56
    #[arg(value_name = "END-USER-PREFIX", value_parser = prefix)]
    prefix: Ipv6Prefix,
}

/// Arguments of `whois`.
#[derive(Args, Debug)]
pub struct Whois {
    #[command(flatten)]
    of: OfFile,
    /// 192.0.2.18:1232 (the port may be left out where the address is not shared) or 2001:db8:12:3400::1
    #[arg(value_name = "IPV4:PORT | IPV6")]
    target: whois::Target,
}

fn prefix(text: &str) -> Result<Ipv6Prefix, String> {
    text.parse().map_err(|e: crate::map::prefix::PrefixError| e.to_string())
}

impl Command {
    /// Does it.
    pub fn run(self) -> Output {
        match self {
            Command::Rules(Rules::Check(of)) => check::run(&of.file, of.json),
            Command::Rules(Rules::Show(of)) => show::run(&of.file, of.json),
            Command::Derive(Derive { of, prefix }) => derive::run(&of.file, prefix, of.json),
            Command::Whois(Whois { of, target }) => whois::run(&of.file, target, of.json),
        }
    }
}
