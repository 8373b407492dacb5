//! The file between two processes of a CE: whose it may be, how old, and that it serves once.
mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::*;
use mapt::ce::Ce;
use mapt::io::run::BEGIN;
use mapt::io::saved::SavedFile;
use mapt::napt::Protocol;
use mapt::ops::engine::Machine;

const HOST: &str = "192.168.1.10";
const SERVER4: &str = "10.2.3.4";
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A directory; gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mapt-saved-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self) -> SavedFile {
        SavedFile::new(&self.0, "ce")
    }

    fn path(&self) -> PathBuf {
        self.0.join("ce.mappings")
    }

    /// What a CE with two flows leaves.
    fn filled(&self) -> u16 {
        let mut machine = machine();
        let port = tuple(&handle_at(&mut machine, &udp4(HOST, 40_000, SERVER4, 53, b""), BEGIN).forwarded()).1;
        handle_at(&mut machine, &tcp4(HOST, 40_001, SERVER4, 443, "S", b""), BEGIN).forwarded();
        assert_eq!(self.file().save(&machine, BEGIN + Duration::from_secs(1)).unwrap(), Some(2));
        port
    }

    /// The error of an attempt, after which nothing lives.
    fn refusal(&self) -> String {
        let mut machine = machine();
        let error = self.file().restore(&mut machine, TEN_MINUTES, BEGIN).unwrap_err().to_string();
        assert_eq!(machine.ce().unwrap().flows(Protocol::Udp), 0);
        error
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn machine() -> Machine {
    Machine::Ce(Box::new(ce()))
}

#[test]
fn flows_go_on_once() {
    let directory = Directory::new();
    let port = directory.filled();
    assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing half written beside it");
    let mut next = machine();
    let back = directory.file().restore(&mut next, TEN_MINUTES, BEGIN).unwrap().unwrap();
    assert_eq!((back.flows.taken, back.flows.expired, back.flows.refused), (2, 0, 0));
    assert!(back.away <= Duration::from_secs(2), "{:?}", back.away);
    let out = handle_at(&mut next, &udp4(HOST, 40_000, SERVER4, 53, b""), BEGIN).forwarded();
    assert_eq!(tuple(&out).1, port);
    // A second process finds nothing.
    assert!(!directory.path().exists());
    assert!(directory.file().restore(&mut machine(), TEN_MINUTES, BEGIN).unwrap().is_none());
}

#[test]
fn only_a_file_of_ours() {
    let directory = Directory::new();
    directory.filled();
    for mode in [0o644, 0o660, 0o606, 0o4600] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        let expected = format!("ce.mappings is not believed: its mode is {mode:o}, not 600");
        assert!(directory.refusal().ends_with(&expected));
        assert!(directory.path().exists(), "it may be somebody's");
    }
    let elsewhere = directory.0.join("elsewhere");
    fs::rename(directory.path(), &elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
    symlink(&elsewhere, directory.path()).unwrap();
    assert!(directory.refusal().contains("cannot be read"), "a link");
    fs::remove_file(directory.path()).unwrap();
    fs::create_dir(directory.path()).unwrap();
    assert!(directory.refusal().contains("it is no regular file"));
    fs::remove_dir(directory.path()).unwrap();
    nix::unistd::mkfifo(&directory.path(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(directory.refusal().contains("it is no regular file"), "and nobody waits for a writer");
    fs::remove_file(directory.path()).unwrap();
    fs::rename(&elsewhere, directory.path()).unwrap();
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&directory.path(), Some(nix::unistd::Uid::from_raw(65_534)), None).unwrap();
        assert!(directory.refusal().ends_with("user 65534 owns it"));
        nix::unistd::chown(&directory.path(), Some(nix::unistd::Uid::from_raw(0)), None).unwrap();
    }
    assert!(directory.file().restore(&mut machine(), TEN_MINUTES, BEGIN).unwrap().is_some());
}

/// What is in the file is not believed, and the file is gone.
#[test]
fn a_file_that_does_not_fit() {
    let directory = Directory::new();
    directory.filled();
    let text = fs::read_to_string(directory.path()).unwrap();
    let saved = text.lines().nth(2).unwrap().to_owned();
    let after_reboot = |seconds: u64| format!("saved {seconds} boot 0-1 up 5");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (bad, expected) in [
        (text.replace("mappings 1", "mappings 2"), "line 1: `2`: expected the version `1`; no flow is restored"),
        (text[..text.len() - 9].to_owned(), "; no flow is restored"),
        (text.replace(&saved, &after_reboot(now - 700)), "`napt.restore-within` is 600 s; no flow is restored"),
        (text.replace(&saved, &after_reboot(now + 700)), "it was written in the future; no flow is restored"),
        (
            text.replace("psid 52", "psid 53"),
            "is of 192.0.2.18 psid-offset 6 psid-len 8 psid 53, \
             and this CE has 192.0.2.18 psid-offset 6 psid-len 8 psid 52; no flow is restored",
        ),
    ] {
        fs::write(directory.path(), bad).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o600)).unwrap();
        let refusal = directory.refusal();
        assert!(refusal.ends_with(expected), "{refusal}");
        assert!(!directory.path().exists());
    }
    // After a reboot, by the time of day.
    fs::write(directory.path(), text.replace(&saved, &after_reboot(now - 200))).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o600)).unwrap();
    let mut next = machine();
    let back = directory.file().restore(&mut next, TEN_MINUTES, BEGIN).unwrap().unwrap();
    assert!((200..=202).contains(&back.away.as_secs()), "{:?}", back.away);
    assert_eq!(back.flows.taken, 2);
    next.ce_mut().unwrap().napt_mut().unwrap().handle_timeout(BEGIN + Duration::from_secs(101));
    assert_eq!(next.ce().unwrap().flows(Protocol::Udp), 0, "it idled for 200 s of its 300 before");
}

#[test]
fn nothing_without_a_napt_and_nothing_without_a_directory() {
    let directory = Directory::new();
    for idle in [Machine::Br(Box::new(br())), Machine::Ce(Box::new(Ce::new(&appendix_a(None), &ce_params())))] {
        assert_eq!(directory.file().save(&idle, BEGIN).unwrap(), None);
        assert!(!directory.path().exists());
    }
    let nowhere = SavedFile::new(&directory.0.join("nowhere"), "ce");
    let error = nowhere.save(&machine(), BEGIN).unwrap_err().to_string();
    assert!(error.contains("ce.mappings cannot be written") && error.contains("state-directory"), "{error}");
}
