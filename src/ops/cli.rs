//! The operator's tool: its arguments, and who does the work. Printing is left to the program.
use super::whowas::{self, Rules as WhoisRules};
use super::{check, derive, files, show, whois};
use crate::map::Ipv6Prefix;
use clap::{Args, Subcommand};
use std::io;
use std::path::{Path, PathBuf};

/// What a command has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The answer.
    pub stdout: String,
    /// Reasons and warnings.
    pub stderr: String,
    /// 0: yes or done, 1: no or invalid, 2: wrong usage.
    pub status: u8,
}

impl Output {
    /// A refusal with its reason.
    pub fn no(reason: &str) -> Self {
        let mut out = Output { status: 1, ..Output::default() };
        out.say(reason);
        out
    }

    /// A wrong usage.
    pub fn usage(reason: &str) -> Self {
        Output { status: 2, ..Output::no(reason) }
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
    /// Rule set or daemon's file, unless there is --history; and 192.0.2.18:1232 (the port may be left out where the
    /// address is not shared) or 2001:db8:12:3400::1, unless there is --bulk
    #[arg(value_name = "[FILE] IPV4:PORT | [FILE] IPV6", num_args = 0..=2)]
    words: Vec<String>,
    /// At that time, such as 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME", requires = "history")]
    at: Option<jiff::Timestamp>,
    /// By the rule sets that were in force: the directory NAME.history of a daemon, or that of `mapt push --history`
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Questions out of a file (`-`: stdin), one a line: [TIME] IPV4:PORT or [TIME] IPV6
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Answer in JSON, a line for each question
    #[arg(long)]
    json: bool,
}

impl Whois {
    fn run(self) -> Output {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let (file, target) = match (&self.history, &self.bulk, &words[..]) {
            (None, None, [file, target]) => (Some(*file), Some(*target)),
            (Some(_), None, [target]) => (None, Some(*target)),
            (None, Some(_), [file]) => (Some(*file), None),
            (Some(_), Some(_), []) => (None, None),
            _ => {
                return Output::usage(
                    "expected FILE and an address; --history DIR takes the place of FILE, --bulk that of the address",
                );
            }
        };
        let target = match target.map(str::parse::<whois::Target>).transpose() {
            Ok(target) => target,
            Err(error) => return Output::usage(&error),
        };
        match (file, target, &self.history) {
            (Some(file), Some(target), _) => whois::run(Path::new(file), target, self.json),
            (_, _, Some(directory)) => self.by(WhoisRules::open(directory), target),
            (Some(file), None, None) => {
                let document = files::document(Path::new(file)).map_err(|findings| findings.to_string());
                self.by(document.map(|loaded| WhoisRules::of(&loaded.value)), None)
            }
            (None, _, None) => Output::usage("expected FILE or --history DIR"),
        }
    }

    fn by(&self, rules: Result<WhoisRules, String>, target: Option<whois::Target>) -> Output {
        let mut rules = match rules {
            Ok(rules) => rules,
            Err(reason) => return Output::no(&reason),
        };
        if let Some(target) = target {
            // Without a time it is now: the newest set.
            return match rules.ask(target, self.at.or(Some(jiff::Timestamp::MAX))) {
                Ok(answer) if self.json => {
                    let mut out = Output::default();
                    out.json(&answer);
                    out
                }
                Ok(answer) => {
                    let mut out = Output::default();
                    out.print(&whowas::in_words(&answer));
                    out
                }
                Err(reason) => Output::no(&reason),
            };
        }
        let mut input: Box<dyn io::BufRead> = match self.bulk.as_deref() {
            Some(path) if path != Path::new("-") => match std::fs::File::open(path) {
                Ok(file) => Box::new(io::BufReader::new(file)),
                Err(error) => return Output::no(&format!("{}: {error}", path.display())),
            },
            _ => Box::new(io::stdin().lock()),
        };
        let out = &mut io::BufWriter::new(io::stdout().lock());
        let result = whowas::bulk(&mut rules, self.at, self.json, &mut *input, out);
        match result.and_then(|good| io::Write::flush(out).map(|()| good)) {
            Ok(good) => Output { status: u8::from(!good), ..Output::default() },
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Output::default(),
            Err(error) => Output::no(&format!("bulk: {error}")),
        }
    }
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
            Command::Whois(whois) => whois.run(),
        }
    }
}
