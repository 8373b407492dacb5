//! Random text as what comes in at a control socket, as what a daemon answers, as questions about a history, and as a
//! rule set on its way to others.

use std::io::Cursor;
use std::path::Path;

use mapt::config::RuleSet;
use mapt::io::client::Target;
use mapt::ops::control::{Answer, Event, Mapping, Ports, Request};
use mapt::ops::diff::Difference;
use mapt::ops::push::{Committed, Prepared};
use mapt::ops::rules_text::rules_text;
use mapt::ops::whowas::{self, Rules};

/// The input: lines; what begins with `version:` is a rule set to its end.
pub fn control(data: &[u8]) {
    for line in data.split_inclusive(|b| *b == b'\n').take(64) {
        match Request::parse(line) {
            // What is understood is said in the same words again.
            Ok(ask) => assert_eq!(Request::parse(&Request::line(ask.clone())), Ok(ask)),
            Err(reason) => assert!(!reason.is_empty()),
        }
        answer::<Mapping, Vec<Ports>>(line);
        answer::<Event, ()>(line);
        answer::<(), Prepared>(line);
        answer::<(), Committed>(line);
        if let Ok(target) = String::from_utf8_lossy(line).trim().parse::<Target>() {
            assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target), "{target}");
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(loaded) = RuleSet::load(&text, Path::new("fuzz.yaml")) {
        let set = loaded.value;
        let written = rules_text(set.version, set.date.as_deref(), &set.table);
        let again = RuleSet::load(&written, Path::new("again.yaml")).unwrap_or_else(|e| panic!("{e}\n{written}")).value;
        assert_eq!((again.version, &again.date, again.dmr), (set.version, &set.date, set.dmr));
        assert_eq!(written, rules_text(again.version, again.date.as_deref(), &again.table));
        // Names alone may differ: those that the file leaves out are made.
        assert!(Difference::between(&set.table, &again.table).is_none(), "{written}");
    }
    let mut rules = RULES.with(|rules| Rules::File { version: 7, table: rules.table.clone() });
    let mut out = Vec::new();
    whowas::bulk(&mut rules, None, true, &mut Cursor::new(data), &mut out).unwrap();
    for line in out.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<serde_json::Value>(line)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(line)));
    }
}

thread_local! {
    static RULES: RuleSet = {
        let text = "rules:\n  - {name: m, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, dmr-ipv6-prefix: 2001:db8:ffff::/64}\n  \
                    - {name: p, rule-ipv6-prefix: 2001:db8:9000::/44, rule-ipv4-prefix: 203.0.113.64/26, ea-len: 2, dmr-ipv6-prefix: 2001:db8:ffff::/64}\n";
        RuleSet::load(text, Path::new("m.yaml")).unwrap().value
    };
}

fn answer<R, D>(line: &[u8])
where
    R: serde::de::DeserializeOwned + serde::Serialize,
    D: serde::de::DeserializeOwned + serde::Serialize,
{
    let Ok(said) = serde_json::from_slice::<Answer<R, D>>(line) else { return };
    // Numbers may lose digits the first time, and none after it.
    let once = said.line();
    let again: Answer<R, D> = serde_json::from_slice(&once).unwrap();
    assert_eq!(again.line(), once);
}
