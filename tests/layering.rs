//! Who may import whom, and where the world may be touched: `src` read as tokens and held against the tables below.
//! `#[cfg(test)]` items are free to import what they like. A table changes with a reason, not to make this pass.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What a module of the crate root may import of ours: whole modules, or one path in them.
const IMPORTS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("map", &[]),
    ("verdict", &[]),
    // Addresses come through the trait `AddressMap`: siit knows no rules.
    ("siit", &["wire", "verdict"]),
    ("napt", &["map::port_set", "verdict"]),
    ("frag", &["wire", "verdict"]),
    ("reply", &["wire", "verdict"]),
    ("stats", &["wire", "verdict"]),
    ("drops", &["wire::PacketBuf", "verdict"]),
    ("engine", &["wire::PacketBuf", "verdict", "stats"]),
    // What both roles share: how a rule's answer becomes an address or a reason, and how an input ends.
    ("mapping", &["map", "siit", "verdict"]),
    ("desk", &["drops", "engine", "frag", "reply", "siit", "stats", "verdict", "wire"]),
    // How fragments wait for each other, whatever the role.
    ("hold", &["desk", "frag", "siit", "verdict", "wire"]),
    // The BR keeps no state of a flow: no napt.
    ("br", &["desk", "drops", "engine", "frag", "hold", "map", "mapping", "reply", "siit", "stats", "verdict", "wire"]),
    (
        "ce",
        &[
            "desk", "drops", "engine", "frag", "hold", "map", "mapping", "napt", "reply", "siit", "stats", "verdict",
            "wire",
        ],
    ),
    ("pcp", &["map::port_set", "napt"]),
    // Parameters of the roles, and nothing that moves a packet.
    (
        "config",
        &[
            "map",
            "br::BrParams",
            "ce::CeParams",
            "frag::FragParams",
            "napt::Filter",
            "napt::Filtering",
            "napt::Forward",
            "napt::Inside",
            "napt::NaptParams",
            "napt::Protocol",
            "napt::Sharing",
            "napt::Timers",
            "pcp::PcpParams",
            "reply::IcmpParams",
            "reply::Originate",
            "siit::Mtu",
            "siit::TranslationParams",
            "siit::UdpZeroChecksum",
            "siit::MssClamp",
            "siit::PortList",
        ],
    ),
    // It builds engines and explains them, so it names their parameters.
    (
        "ops",
        &[
            "config",
            "map",
            "ce",
            "br",
            "napt",
            "pcp",
            "engine",
            "stats",
            "drops",
            "verdict",
            "wire",
            "reply::IcmpParams",
            "reply::Originate",
            // One table for the engines of all queues.
            "frag::FragTable",
            "frag::FragParams",
            "frag::Usage",
            "siit::TranslationParams",
        ],
    ),
    // `pcp`: its sockets are there.
    ("io", &["pcp", "wire::PacketBuf", "wire::VnetHdr", "wire::buf", "verdict", "stats", "engine", "config", "ops"]),
    ("fastpath", &["map", "engine", "verdict", "stats", "io"]),
    ("lab", &["io", "config", "ops", "map"]),
];

/// Where a packet passes: no panic by our own hand.
const DATA_PATH: &[&str] = &[
    "wire", "map", "siit", "napt", "frag", "reply", "stats", "drops", "verdict", "engine", "mapping", "desk", "hold",
    "br", "ce", "pcp",
];
const WORLD: &[&str] = &["io", "lab", "fastpath", "bin"];
const WORLD_AND_OPS: &[&str] = &["io", "lab", "fastpath", "bin", "ops"];

/// Paths, or parts of them, that stand only in some modules.
const PLACES: &[(&str, &[&str])] = &[
    ("Instant::now", WORLD),
    ("SystemTime::now", WORLD_AND_OPS),
    ("std::fs", WORLD_AND_OPS),
    ("std::process", WORLD_AND_OPS),
    ("std::os::unix::net", WORLD),
    ("UdpSocket", WORLD),
    ("TcpListener", WORLD),
    ("TcpStream", WORLD),
    ("nix", WORLD),
    ("tokio", WORLD),
    ("rtnetlink", WORLD),
    ("tun_rs", WORLD),
    ("futures_util", WORLD),
    ("tracing", WORLD_AND_OPS),
    ("clap", &["ops", "bin", "lab", "io"]),
    // Tests alone: it judges what `src` does.
    ("etherparse", &[]),
    // Only raw.rs of it, see below.
    ("serde_saphyr", &["config"]),
];

/// A path as written, made absolute where it begins with `crate`, `self` or `super`.
#[derive(Debug)]
struct Named {
    path: Vec<String>,
    ours: bool,
    line: usize,
}

#[derive(Default)]
struct Facts {
    paths: Vec<Named>,
    /// `unsafe`, and calls and macros that panic.
    words: Vec<(String, usize)>,
}

fn word(token: &TokenTree) -> Option<String> {
    if let TokenTree::Ident(ident) = token { Some(ident.to_string()) } else { None }
}

fn is(token: Option<&TokenTree>, c: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == c)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match token {
        Some(TokenTree::Group(g)) if g.delimiter() == delimiter => Some(g.stream().into_iter().collect()),
        _ => None,
    }
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

impl Facts {
    fn of(text: &str, module: &[String]) -> Facts {
        let tokens: TokenStream = text.parse().expect("src is Rust");
        let mut facts = Facts::default();
        facts.walk(&tokens.into_iter().collect::<Vec<_>>(), module);
        facts
    }

    fn walk(&mut self, tokens: &[TokenTree], module: &[String]) {
        let mut i = 0;
        while let Some(token) = tokens.get(i) {
            if is(Some(token), '#')
                && let Some(attribute) = group(tokens.get(i + 1), Delimiter::Bracket)
                && attribute.iter().map(ToString::to_string).collect::<String>() == "cfg(test)"
            {
                // The item: up to its body or its semicolon.
                let ends = |t: &TokenTree| is(Some(t), ';') || group(Some(t), Delimiter::Brace).is_some();
                i += tokens[i..].iter().position(ends).map_or(tokens.len(), |n| n + 1);
                continue;
            }
            let Some(name) = word(token) else {
                if let TokenTree::Group(g) = token {
                    self.walk(&g.stream().into_iter().collect::<Vec<_>>(), module);
                }
                i += 1;
                continue;
            };
            if name == "mod"
                && let Some(inner) = tokens.get(i + 1).and_then(word)
                && let Some(body) = group(tokens.get(i + 2), Delimiter::Brace)
            {
                self.walk(&body, &[module, &[inner]].concat());
                i += 3;
                continue;
            }
            let called = i > 0 && is(tokens.get(i - 1), '.') && ["unwrap", "expect"].contains(&name.as_str());
            let shouted = is(tokens.get(i + 1), '!')
                && ["panic", "unreachable", "todo", "unimplemented"].contains(&name.as_str());
            if called || shouted || name == "unsafe" {
                self.words.push((name.clone(), line(token)));
            }
            i = self.path(tokens, i, module, &[]);
        }
    }

    /// The path that begins at `i`, and the tree below it in a `use`; where it ends.
    fn path(&mut self, tokens: &[TokenTree], mut i: usize, module: &[String], prefix: &[String]) -> usize {
        let at = line(&tokens[i]);
        let mut written = prefix.to_vec();
        loop {
            match tokens.get(i) {
                Some(TokenTree::Ident(ident)) => written.push(ident.to_string()),
                Some(TokenTree::Punct(p)) if p.as_char() == '*' => written.push("*".into()),
                token => {
                    let Some(tree) = group(token, Delimiter::Brace) else { break };
                    for branch in tree.split(|t| is(Some(t), ',')).filter(|b| !b.is_empty()) {
                        self.path(branch, 0, module, &written);
                    }
                    return i + 1;
                }
            }
            i += 1;
            if !(is(tokens.get(i), ':') && is(tokens.get(i + 1), ':')) {
                break;
            }
            i += 2;
        }
        let mut path: &[String] = &written;
        let mut from: Option<Vec<String>> = None;
        while let Some((first, rest)) = path.split_first() {
            match first.as_str() {
                "crate" => from = Some(Vec::new()),
                "self" if rest.is_empty() && from.is_none() && !prefix.is_empty() => {}
                "self" => from = Some(from.unwrap_or_else(|| module.to_vec())),
                "super" => {
                    let mut base = from.unwrap_or_else(|| module.to_vec());
                    base.pop();
                    from = Some(base);
                }
                _ => break,
            }
            path = rest;
        }
        let ours = from.is_some();
        let path = from.unwrap_or_default().into_iter().chain(path.iter().cloned()).collect();
        self.paths.push(Named { path, ours, line: at });
        i
    }
}

/// Whether `path` begins with the segments of `rule`.
fn begins(path: &[String], rule: &str) -> bool {
    let mut segments = path.iter();
    rule.split("::").all(|r| segments.next().is_some_and(|s| s == r))
}

/// Whether the segments of `rule` stand one after the other in `path`; a single crate's name only in front.
fn stands(path: &[String], rule: &str) -> bool {
    let crate_name = !rule.contains("::") && rule.chars().all(|c| c.is_lowercase() || c == '_');
    if crate_name { path.len() > 1 && path[0] == rule } else { (0..path.len()).any(|i| begins(&path[i..], rule)) }
}

/// What is wrong with one file. `file` is relative to `src`.
fn judge(file: &Path, text: &str) -> Vec<String> {
    let mut module: Vec<String> = file.with_extension("").iter().map(|s| s.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    let own = module.first().cloned().unwrap_or_else(|| "lib".into());
    let facts = Facts::of(text, &module);
    let mut wrong = Vec::new();
    let mut say = |line: usize, what: String| wrong.push(format!("src/{}:{line}: {what}", file.display()));

    let allowed = IMPORTS.iter().find(|(name, _)| *name == own).map(|(_, allowed)| *allowed);
    for Named { path, ours, line } in &facts.paths {
        if let (true, Some(target)) = (*ours && own != "bin" && own != "lib", path.first())
            && *target != own
            && !allowed.is_some_and(|allowed| allowed.iter().any(|rule| begins(path, rule)))
        {
            say(*line, format!("`{own}` may not import `{}`", path.join("::")));
        }
        for (rule, places) in PLACES {
            let raw = *rule != "serde_saphyr" || file == Path::new("config/raw.rs");
            if !*ours && stands(path, rule) && !(places.contains(&own.as_str()) && raw) {
                say(*line, format!("`{rule}` has no place in `{own}`"));
            }
        }
    }
    for (word, line) in &facts.words {
        if word == "unsafe" && !["io", "fastpath"].contains(&own.as_str()) {
            say(*line, format!("`unsafe` has no place in `{own}`"));
        } else if word != "unsafe" && DATA_PATH.contains(&own.as_str()) {
            say(*line, format!("`{word}` on the packet path"));
        }
    }
    if own != "bin" && own != "lib" && allowed.is_none() {
        say(1, format!("`{own}` is not in the table of tests/layering.rs"));
    }
    if own == "bin" && text.lines().count() >= 100 {
        say(100, "a program has under 100 lines; its logic belongs into the library".into());
    }
    wrong
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn src_keeps_the_import_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() > 30, "found only {} files below {}", files.len(), src.display());
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| judge(file.strip_prefix(&src).unwrap(), &fs::read_to_string(file).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_roles_are_reached_only_from_above() {
    let above: BTreeSet<_> = IMPORTS
        .iter()
        .filter(|(_, allowed)| allowed.iter().any(|a| *a == "ce" || *a == "br"))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(above, BTreeSet::from(["ops"]));
}

#[test]
fn what_is_forbidden_is_found() {
    let found = |file: &str, text: &str| judge(Path::new(file), text);
    let one = |file: &str, text: &str, expected: &str| {
        let found = found(file, text);
        assert_eq!(found.len(), 1, "{file}: {text}: {found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    };
    one("wire/ip.rs", "\nuse crate::map::Dmr;", "src/wire/ip.rs:2: `wire` may not import `map::Dmr`");
    one("wire/ip.rs", "use crate::{wire::{buf, ip}, map};", "import `map`");
    one("wire/ip.rs", "fn f() { let x = crate::siit::plan(1); }", "import `siit::plan`");
    one("wire/ip.rs", "use super::super::verdict::Verdict;", "import `verdict::Verdict`");
    one("wire/ip.rs", "mod a { use super::super::super::map::X; }", "import `map::X`");
    one("reply.rs", "use super::br::Br;", "import `br::Br`");
    one("napt/mod.rs", "use crate::map::Dmr;", "import `map::Dmr`");
    one("engine.rs", "use crate::wire::*;", "import `wire::*`");
    one("ce/mod.rs", "fn f() -> Vec<crate::br::Br> { vec![] }", "import `br::Br`");
    one("new/mod.rs", "", "not in the table");
    one("ce/mod.rs", "use std::{net, fs::File};", "`std::fs`");
    one("ops/mod.rs", "fn f() { std::time::Instant::now(); }", "`Instant::now`");
    one("ops/mod.rs", "use tokio::net;", "`tokio`");
    one("lab/mod.rs", "use etherparse::PacketBuilder;", "`etherparse`");
    one("ops/mod.rs", "fn f() { unsafe { g() } }", "`unsafe`");
    one("config/rules.rs", "use serde_saphyr::from_str;", "`serde_saphyr`");
    one("br/mod.rs", "fn f() { g().unwrap(); }", "`unwrap` on the packet path");
    one("br/mod.rs", "fn f() { let c = || g(h.expect(\"x\")); }", "`expect` on the packet path");
    one("map/rule.rs", "fn f() { panic!() }", "`panic` on the packet path");
    one("bin/mapt.rs", &iter::repeat_n("\n", 100).collect::<String>(), "under 100 lines");

    for (file, text) in [
        ("napt/mod.rs", "use crate::map::port_set::PortSet; use super::napt::table; pub(super) fn f() {}"),
        ("napt/pool.rs", "use super::{Inside, clock::Tick}; use self::x::Y; use crate::napt::Napt;"),
        ("ce/mod.rs", "// use crate::br;\nconst S: &str = \"crate::io::x std::fs\"; /// `.unwrap()`\nfn f() {}"),
        ("ce/mod.rs", "#[cfg(test)]\nmod tests { use crate::br::Br; fn f() { g().unwrap() } }\nfn h() {}"),
        ("ce/mod.rs", "#[cfg(test)]\nuse crate::br::Br;\nfn h() { a.unwrap_or(b) }"),
        ("io/run.rs", "use std::time::Instant; fn f() { Instant::now(); unsafe { g() } }"),
        ("ops/files.rs", "use std::fs::File;"),
        ("config/raw.rs", "use serde_saphyr::from_str;"),
    ] {
        assert_eq!(found(file, text), Vec::<String>::new(), "{file}: {text}");
    }
    // The item behind `cfg(test)` alone is free.
    one("ce/mod.rs", "#[cfg(test)]\nuse crate::br::Br;\nfn h() { a.unwrap() }", ":3: `unwrap`");
}
