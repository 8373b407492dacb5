//! `mapt push` to running daemons: all or none, back by itself, and what is left when somebody dies on the way.
mod io_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, loudly, privileged, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

const BR: &str = env!("CARGO_BIN_EXE_mapt-br");
const CE: &str = env!("CARGO_BIN_EXE_mapt-ce");
const MAPT: &str = env!("CARGO_BIN_EXE_mapt");

/// Rule `rN`: 2001:db8:N00::/40 with 192.0.N.0/24 and 16 EA bits, so 65,536 customers.
fn rules(version: u64, of: &[u8]) -> String {
    let rule = |n: &u8| {
        format!(
            "  - {{name: r{n}, rule-ipv6-prefix: 2001:db8:{n}00::/40, rule-ipv4-prefix: 192.0.{n}.0/24, ea-len: 16}}\n"
        )
    };
    let all: String = of.iter().map(rule).collect();
    format!("version: {version}\ndmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n{all}")
}

/// BRs and CEs in one namespace, each with a control socket and a state directory of its own.
struct Boxes {
    namespace: Namespace,
    files: Files,
}

impl Boxes {
    fn new(name: &str) -> Boxes {
        let files = Files::new(&format!("io-push-{name}"), &[("rules.yaml", &rules(1, &[2, 3]))]);
        Boxes { namespace: Namespace::router(), files }
    }

    fn write(&self, instance: &str, role: &str, more: &str) -> PathBuf {
        std::fs::create_dir_all(self.files.path(&format!("state-{instance}"))).unwrap();
        let config = format!(
            "role: {role}\nrules: rules.yaml\ninstance: {instance}\nstate-directory: state-{instance}\ncontrol: {{socket: {instance}.sock}}\n{more}"
        );
        self.files.write(&format!("{instance}.yaml"), &config)
    }

    /// Starts a daemon whose file is there; its log goes to `INSTANCE.log`, `fault` is where it dies.
    fn start(&self, program: &str, instance: &str, fault: &str) -> Daemon {
        let log = std::fs::File::create(self.files.path(&format!("{instance}.log"))).unwrap();
        let mut command = Command::new(program);
        command.arg(self.files.path(&format!("{instance}.yaml"))).stderr(log).env("MAPT_FAULT", fault);
        let daemon = Daemon::spawn(&self.namespace, &mut command);
        let ready = daemon.line();
        assert!(ready.starts_with("ready: "), "{ready}");
        daemon
    }

    fn br(&self, instance: &str, more: &str) -> Daemon {
        self.write(instance, "br", more);
        self.start(BR, instance, "")
    }

    fn log(&self, instance: &str) -> String {
        std::fs::read_to_string(self.files.path(&format!("{instance}.log"))).unwrap()
    }

    fn mapt(&self, arguments: &str, fault: &str) -> Output {
        let mut command = Command::new(MAPT);
        command.args(arguments.split_whitespace()).current_dir(&self.files.0).env("MAPT_FAULT", fault);
        command.output().unwrap()
    }

    /// Status and answer of a push.
    fn push(&self, arguments: &str) -> (bool, Value) {
        let output = self.mapt(&format!("push --json {arguments}"), "");
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments}: {e}: {errors}"));
        (output.status.success(), answer)
    }

    /// The version in force.
    fn version(&self, instance: &str) -> u64 {
        let (_, answer) = self.push(&format!("rules.yaml --check --to {instance}.sock"));
        let target = &answer["targets"][0];
        match target["prepared"]["before"]["version"].as_u64() {
            Some(version) => version,
            // An older one is refused, and the refusal names what is in force.
            None => {
                let reason = target["outcome"]["refused"].as_str().unwrap_or_else(|| panic!("{answer}"));
                let words: Vec<&str> = reason.split_whitespace().collect();
                assert_eq!(words[0], "version", "{reason}");
                words[1].parse().unwrap()
            }
        }
    }

    /// The IPv4 routes, by the third octet.
    fn routes(&self, device: &str) -> Vec<u8> {
        let routes = self.namespace.ip(&format!("-4 route show dev {device}"));
        let octet = |line: &str| line.split('.').nth(2).unwrap().parse().unwrap();
        routes.lines().map(octet).collect()
    }

    fn history(&self, instance: &str) -> Vec<String> {
        let directory = self.files.path(&format!("state-{instance}/{instance}.history"));
        let mut all: Vec<String> = (std::fs::read_dir(directory).unwrap())
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                format!("{} {}", &name[..20], text.lines().next().unwrap().to_owned() + &name[20..])
            })
            .collect();
        all.sort();
        all.into_iter().map(|line| line[21..].to_owned()).collect()
    }
}

fn outcomes(answer: &Value) -> Vec<String> {
    let word = |t: &Value| match &t["outcome"] {
        Value::String(word) => word.clone(),
        other => other.as_object().unwrap().keys().next().unwrap().clone(),
    };
    answer["targets"].as_array().unwrap().iter().map(word).collect()
}

#[test]
fn a_push_reaches_all_or_none() {
    if !privileged() {
        return;
    }
    let boxes = Boxes::new("all");
    let one = boxes.br("one", "");
    let _two = boxes.br("two", "routes: {install: false}\n");
    boxes.write("home", "ce", "end-user-ipv6-prefix: 2001:db8:212:3400::/56\nroutes: {install: false}\n");
    let home = boxes.start(CE, "home", "");
    let three = "--to one.sock two.sock home.sock";

    boxes.files.write("new.yaml", &rules(2, &[2, 4, 5]));
    let (good, answer) = boxes.push(&format!("new.yaml --check {three}"));
    assert!(good);
    assert_eq!(outcomes(&answer), ["prepared"; 3]);
    assert_eq!(boxes.version("one"), 1, "a check changes nothing");

    let (good, answer) = boxes.push(&format!("new.yaml {three}"));
    assert!(good, "{answer}");
    assert_eq!((outcomes(&answer), answer["version"].as_u64()), (vec!["committed".to_owned(); 3], Some(2)));
    let prepared = &answer["targets"][0]["prepared"];
    assert_eq!((&prepared["role"], &prepared["instance"]), (&"br".into(), &"one".into()));
    assert_eq!((prepared["before"]["version"].as_u64(), prepared["after"]["version"].as_u64()), (Some(1), Some(2)));
    assert_eq!(prepared["rules"]["names"], serde_json::json!(["+r4", "+r5", "-r3"]));
    assert_eq!(prepared["rules"]["customers"].as_u64(), Some(65_536));
    assert_eq!(prepared["routes"], serde_json::json!({"added": 2, "removed": 1, "changed": 0}));
    assert_eq!(one.line(), "pushed: rule set version 1 -> 2");
    assert_eq!(home.line(), "pushed: rule set version 1 -> 2");
    assert_eq!(boxes.routes("mapt-one"), [2, 4, 5]);
    assert_eq!(boxes.history("one"), ["version: 1-file", "version: 2-pushed"]);

    let (good, answer) = boxes.push(&format!("new.yaml {three}"));
    assert!(good);
    assert_eq!(outcomes(&answer), ["unchanged"; 3], "the same version twice");
    assert_eq!(boxes.history("one").len(), 2);

    // Without rule 2 the home has no rule: it refuses, and nobody changes.
    boxes.files.write("less.yaml", &rules(3, &[4]));
    let output = boxes.mapt(&format!("push less.yaml {three}"), "");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let refusal = text.lines().find(|line| line.starts_with("home.sock: ")).unwrap_or_else(|| panic!("{text}"));
    assert!(refusal.contains("end-user-ipv6-prefix"), "{text}");
    assert_eq!([boxes.version("one"), boxes.version("two"), boxes.version("home")], [2; 3]);
    assert_eq!(boxes.routes("mapt-one"), [2, 4, 5]);

    // An older version, and other rules of the same one.
    let (good, answer) = boxes.push("rules.yaml --to one.sock");
    assert!(!good && answer["targets"][0]["outcome"]["refused"].as_str().unwrap().contains("--force"), "{answer}");
    boxes.files.write("same.yaml", &rules(2, &[2]));
    let (good, answer) = boxes.push("same.yaml --to one.sock");
    assert!(!good && answer["targets"][0]["outcome"]["refused"].as_str().unwrap().contains("other rules"), "{answer}");
    let (good, _) = boxes.push("rules.yaml --force --to one.sock");
    assert!(good);
    assert_eq!((boxes.version("one"), boxes.routes("mapt-one")), (1, vec![2, 3]));

    // Bad rules are refused before anybody is asked; targets that are not there, and none at all.
    boxes.files.write("bad.yaml", "version: 9\nrules: 7\n");
    let output = boxes.mapt(&format!("push bad.yaml {three}"), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.yaml:2:8"), "{output:?}");
    boxes.files.write("inventory", "# all\none.sock  # the first\n\nnone.sock\n");
    let (good, answer) = boxes.push("new.yaml --inventory inventory");
    assert!(!good);
    assert_eq!((outcomes(&answer), boxes.version("one")), (vec!["prepared".to_owned(), "refused".to_owned()], 1));
    assert_eq!(boxes.mapt("push new.yaml", "").status.code(), Some(1));
    assert_eq!(boxes.mapt("push", "").status.code(), Some(2));
    assert_eq!(boxes.mapt("push new.yaml --confirm-within 9s --to one.sock", "").status.code(), Some(2));
}

/// What fails after the checks: the one keeps the old set, the others go back to it.
#[test]
fn a_commit_that_fails_leaves_the_old_set_everywhere() {
    if !privileged() {
        return;
    }
    let boxes = Boxes::new("commit");
    let one = boxes.br("one", "routes: {install: false}\n");
    let _two = boxes.br("two", "");
    boxes.files.write("new.yaml", &rules(2, &[2, 4, 5]));
    // A route of somebody's stands where one of ours would.
    boxes.namespace.ip("route add 192.0.5.0/24 dev lo metric 1024");
    let (good, answer) = boxes.push("new.yaml --to one.sock two.sock");
    assert!(!good);
    assert_eq!(outcomes(&answer), ["reverted", "refused"], "{answer}");
    let reason = answer["targets"][1]["outcome"]["refused"].as_str().unwrap();
    assert!(reason.contains("192.0.5.0/24 dev lo"), "{reason}");
    assert_eq!([boxes.version("one"), boxes.version("two")], [1, 1]);
    assert_eq!(boxes.routes("mapt-two"), [2, 3]);
    assert!(one.line().starts_with("pushed: rule set version 1 -> 2"));
    assert_eq!(one.line(), "returned: rule set version 2 -> 1, 0 -> 0 route(s); the push failed elsewhere");
    assert_eq!(boxes.history("one"), ["version: 1-file", "version: 2-pushed", "version: 1-returned"]);
    boxes.namespace.ip("route delete 192.0.5.0/24 dev lo");

    // Nothing can be kept: a file stands where the directory is to be.
    let history = boxes.files.path("state-two/two.history");
    std::fs::rename(&history, boxes.files.path("moved")).unwrap();
    std::fs::write(&history, "").unwrap();
    let (good, answer) = boxes.push("new.yaml --to two.sock");
    assert!(!good);
    let reason = answer["targets"][0]["outcome"]["refused"].as_str().unwrap();
    assert!(reason.contains("two.history") && reason.contains("cannot be"), "{reason}");
    assert_eq!((boxes.version("two"), boxes.routes("mapt-two")), (1, vec![2, 3]));
    std::fs::remove_file(&history).unwrap();
    std::fs::rename(boxes.files.path("moved"), &history).unwrap();
    assert!(boxes.push("new.yaml --to one.sock two.sock").0);
    assert_eq!(boxes.routes("mapt-two"), [2, 4, 5]);
}

#[test]
fn by_way_of_ssh() {
    if !privileged() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let boxes = Boxes::new("ssh");
    let _one = boxes.br("one", "");
    // What ssh would do, without the network: the host's name is checked, the rest runs here.
    let ssh = boxes.files.write(
        "ssh",
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\n[ \"$2\" = br1.example.net ] || { echo \"no route to $2\" >&2; exit 255; }\nshift 2\nexec \"$@\"\n",
    );
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    boxes.files.write("new.yaml", &rules(2, &[2]));
    let bin = Path::new(MAPT).parent().unwrap().display().to_string();
    let push = |host: &str| {
        let target = format!("ssh://{host}{}", boxes.files.path("one.sock").display());
        let mut command = Command::new(MAPT);
        command.args(["push", "new.yaml", "--json", "--to", &target]).current_dir(&boxes.files.0);
        command.env("MAPT_SSH", &ssh).env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(outcomes(&push("br2.example.net")), ["refused"]);
    assert_eq!(boxes.version("one"), 1);
    assert_eq!(outcomes(&push("br1.example.net")), ["committed"]);
    assert_eq!(boxes.version("one"), 2);
}

#[test]
fn what_nobody_confirms_goes_back() {
    if !privileged() {
        return;
    }
    let boxes = Boxes::new("confirm");
    let mut one = boxes.br("one", "");
    boxes.files.write("new.yaml", &rules(2, &[2, 4]));
    let (good, answer) = boxes.push("new.yaml --confirm-within 10s --to one.sock");
    assert!(good, "{answer}");
    assert!(answer["targets"][0]["committed"]["confirm-until"].is_string());
    assert!(one.line().starts_with("pushed: rule set version 1 -> 2, to be confirmed until "));
    assert_eq!(boxes.routes("mapt-one"), [2, 4]);
    let (good, answer) = boxes.push("new.yaml --force --to one.sock");
    assert!(!good && answer.to_string().contains("--confirm"), "{answer}");
    // A restart in between, kill -9.
    one.child.kill().unwrap();
    one.end();
    let one = boxes.start(BR, "one", "");
    assert_eq!(boxes.routes("mapt-one"), [2, 4]);
    assert_eq!(one.line(), "returned: rule set version 2 -> 1, 3 -> 3 route(s); nobody confirmed it in time");
    assert_eq!((boxes.version("one"), boxes.routes("mapt-one")), (1, vec![2, 3]));
    assert_eq!(boxes.history("one"), ["version: 1-file", "version: 2-pushed", "version: 1-returned"]);
    let output = boxes.mapt("push --confirm --to one.sock", "");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("nothing waits"),
        "{output:?}"
    );

    // Confirmed it stays, over a restart as well.
    let (good, _) = boxes.push("new.yaml --confirm-within 1h --force --to one.sock");
    assert!(good);
    assert!(boxes.mapt("push --confirm --to one.sock", "").status.success());
    assert!(one.line().starts_with("pushed: "));
    assert_eq!(one.line(), "confirmed: rule set version 2");
    one.signal(Signal::SIGTERM);
    one.end();
    let mut one = boxes.start(BR, "one", "");
    assert_eq!((boxes.version("one"), boxes.routes("mapt-one")), (2, vec![2, 4]));

    // The time is over while nobody runs: the next start goes back at once.
    boxes.files.write("third.yaml", &rules(3, &[7]));
    assert!(boxes.push("third.yaml --confirm-within 10s --to one.sock").0);
    one.child.kill().unwrap();
    one.end();
    let pending = boxes.files.path("state-one/one.history/pending");
    let text = std::fs::read_to_string(&pending).unwrap();
    let (_, back_to) = text.split_once(' ').unwrap();
    std::fs::write(&pending, format!("2026-11-23T00:00:00Z {back_to}")).unwrap();
    let _one = boxes.start(BR, "one", "");
    assert_eq!((boxes.version("one"), boxes.routes("mapt-one")), (2, vec![2, 4]));
    assert!(!pending.exists());
}

#[test]
fn the_newest_accepted_set_is_in_force_after_a_restart() {
    if !privileged() {
        return;
    }
    let boxes = Boxes::new("restart");
    let end = |mut daemon: Daemon| {
        daemon.child.kill().unwrap();
        daemon.end();
    };
    end(boxes.br("one", ""));
    assert_eq!(boxes.history("one"), ["version: 1-file"]);
    // An edit of the file is followed, whatever its version, as long as nothing was pushed.
    boxes.files.write("rules.yaml", &rules(0, &[3]));
    end(boxes.start(BR, "one", ""));
    assert!(boxes.log("one").contains("the file has rule set version 0 now"), "{}", boxes.log("one"));
    boxes.files.write("rules.yaml", &rules(1, &[2, 3]));
    let one = boxes.start(BR, "one", "");

    boxes.files.write("new.yaml", &rules(5, &[4]));
    assert!(boxes.push("new.yaml --to one.sock").0);
    end(one);
    let one = boxes.start(BR, "one", "");
    assert_eq!(boxes.routes("mapt-one"), [4]);
    let log = boxes.log("one");
    assert!(log.contains("rule set version 5 (pushed, ") && log.contains("version 1 is not larger than 5"), "{log}");
    // SIGHUP keeps it as well, until the file is newer than all there was.
    boxes.files.write("rules.yaml", &rules(5, &[2]));
    one.signal(Signal::SIGHUP);
    assert_eq!(one.line(), "reloaded: rule set version 5 -> 5, 2 -> 2 route(s)");
    assert_eq!(boxes.routes("mapt-one"), [4]);
    // A file that is gone or broken, and one whose set no longer fits.
    boxes.files.write("rules.yaml", "rules: 7\n");
    end(one);
    let one = boxes.start(BR, "one", "");
    assert_eq!(boxes.routes("mapt-one"), [4]);
    assert!(boxes.log("one").contains("the file cannot be used"), "{}", boxes.log("one"));
    boxes.files.write("rules.yaml", &rules(6, &[2, 3]));
    end(one);
    let one = boxes.start(BR, "one", "");
    assert_eq!((boxes.version("one"), boxes.routes("mapt-one")), (6, vec![2, 3]));
    end(one);
    // A history that no longer makes sense: the file serves.
    for file in std::fs::read_dir(boxes.files.path("state-one/one.history")).unwrap() {
        std::fs::write(file.unwrap().path(), "version: 9\nrules: [").unwrap();
    }
    let _one = boxes.start(BR, "one", "");
    assert_eq!(boxes.routes("mapt-one"), [2, 3]);
}

/// Whether the programs die where they are told to; says so loudly where not.
fn has_faults() -> bool {
    if !cfg!(debug_assertions) {
        loudly("a release build has no fault points");
    }
    cfg!(debug_assertions) && privileged()
}

/// Wherever the daemon dies, the next one has the old set or the new one, with the routes of that.
#[test]
fn a_daemon_that_dies_on_the_way_is_old_or_new() {
    if !has_faults() {
        return;
    }
    let boxes = Boxes::new("faults");
    boxes.files.write("new.yaml", &rules(2, &[3, 4]));
    // With a confirmation what waits for it is written first, as the set is.
    let faults = [
        ("commit", true, 1),
        ("widened", true, 1),
        ("history-written", true, 1),
        ("history-renamed", true, 1),
        ("pending", true, 1),
        ("history-written", false, 1),
        ("history-renamed", false, 2),
        ("kept", true, 2),
        ("replaced", true, 2),
    ];
    for (n, (fault, confirm, expected)) in faults.into_iter().enumerate() {
        let instance = format!("b{n}");
        boxes.write(&instance, "br", "");
        // Its history begins before.
        let mut daemon = boxes.start(BR, &instance, "");
        daemon.child.kill().unwrap();
        daemon.end();
        let daemon = boxes.start(BR, &instance, fault);
        let within = if confirm { "--confirm-within 1h" } else { "" };
        let (good, answer) = boxes.push(&format!("new.yaml {within} --to {instance}.sock"));
        assert!(!good, "{fault}: {answer}");
        assert_eq!(outcomes(&answer), ["unknown"], "{fault}: {answer}");
        assert!(!daemon.end().0.success());
        let daemon = boxes.start(BR, &instance, "");
        let device = format!("mapt-{instance}");
        let is = |what: &str| {
            assert_eq!(boxes.version(&instance), expected, "{fault} {what}");
            assert_eq!(boxes.routes(&device), if expected == 1 { [2, 3] } else { [3, 4] }, "{fault} {what}");
        };
        is("after the restart");
        // Going back to what is in force is nothing.
        let confirmed = boxes.mapt(&format!("push --confirm --to {instance}.sock"), "").status.success();
        assert_eq!(confirmed, confirm && !["commit", "widened", "history-written"].contains(&fault), "{fault}");
        is("confirmed");
        daemon.signal(Signal::SIGTERM);
        daemon.end();
    }
}

#[test]
fn a_pusher_that_dies_leaves_whole_sets() {
    if !has_faults() {
        return;
    }
    let boxes = Boxes::new("pusher");
    let _one = boxes.br("one", "");
    let _two = boxes.br("two", "routes: {install: false}\n");
    boxes.files.write("new.yaml", &rules(2, &[3, 4]));
    let output = boxes.mapt("push new.yaml --to one.sock two.sock", "all-prepared");
    assert!(!output.status.success());
    assert_eq!([boxes.version("one"), boxes.version("two")], [1, 1]);
    // Dead between two commits: one may have it, the other takes its offer back; the same push mends it.
    let output = boxes.mapt("push new.yaml --to one.sock two.sock", "one-committing");
    assert!(!output.status.success());
    assert_eq!(boxes.version("two"), 1);
    wait_for("the offers to be taken back", || {
        let (good, answer) = boxes.push("new.yaml --check --to one.sock two.sock");
        good || !answer.to_string().contains("another push")
    });
    assert!(boxes.push("new.yaml --to one.sock two.sock").0);
    assert_eq!([boxes.version("one"), boxes.version("two")], [2, 2]);
    assert_eq!(boxes.routes("mapt-one"), [3, 4]);
}

#[test]
fn fifty_daemons_and_one_that_refuses() {
    if !privileged() {
        return;
    }
    let boxes = Boxes::new("fifty");
    let more = "routes: {install: false}\ntun: {queues: 1}\nsysctl: check\n";
    let mut daemons: Vec<Daemon> = (0..49).map(|n| boxes.br(&format!("b{n}"), more)).collect();
    boxes.write("home", "ce", "end-user-ipv6-prefix: 2001:db8:212:3400::/56\nroutes: {install: false}\n");
    daemons.push(boxes.start(CE, "home", ""));
    let inventory: String = (0..49).map(|n| format!("b{n}.sock\n")).collect();
    boxes.files.write("inventory", &format!("{inventory}home.sock\n"));
    boxes.files.write("less.yaml", &rules(2, &[4]));
    let output = boxes.mapt("push less.yaml --json --inventory inventory", "");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = outcomes(&answer);
    assert_eq!((all.len(), all.iter().filter(|o| *o == "prepared").count()), (50, 49));
    assert!(String::from_utf8_lossy(&output.stderr).contains("checked 50 of 50"), "{output:?}");
    assert!([0, 17, 48].iter().all(|n| boxes.version(&format!("b{n}")) == 1));
    boxes.files.write("more.yaml", &rules(2, &[2, 4]));
    let (good, answer) = boxes.push("more.yaml --inventory inventory --history kept");
    assert!(good, "{answer}");
    assert_eq!(outcomes(&answer), ["committed"; 50]);
    for daemon in &daemons {
        assert_eq!(daemon.line(), "pushed: rule set version 1 -> 2");
    }
    assert_eq!(std::fs::read_dir(boxes.files.path("kept")).unwrap().count(), 1);
}
