//! The rule sets that were in force, each with the time from which it was: a directory, a file for each.
//!
//! A file's name is `<time>-<origin>.yaml`, such as `20261123T044154.123Z-pushed.yaml`, and its text the rule set. A set
//! is in force from that time until that of the next file, so the directory is the whole truth: what is not there never
//! was, and a file is there whole or not at all. `pending` names the set to go back to and when.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;

use super::fault::fault;

/// How a set came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Out of the file that the daemon's configuration names.
    File,
    /// By `mapt push`.
    Pushed,
    /// Put back, since nobody confirmed what had been pushed.
    Returned,
}

impl Origin {
    const ALL: [Origin; 3] = [Origin::File, Origin::Pushed, Origin::Returned];

    /// As in file names and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Origin::File => "file",
            Origin::Pushed => "pushed",
            Origin::Returned => "returned",
        }
    }
}

impl FromStr for Origin {
    type Err = ();
    fn from_str(name: &str) -> Result<Origin, ()> {
        Origin::ALL.into_iter().find(|origin| origin.name() == name).ok_or(())
    }
}

/// A set of the history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Since when it was in force, to a millisecond.
    pub at: Timestamp,
    /// How it came.
    pub origin: Origin,
    /// Its file.
    pub path: PathBuf,
}

impl Entry {
    fn of(path: PathBuf) -> Option<Entry> {
        let (at, origin) = path.file_name()?.to_str()?.strip_suffix(".yaml")?.split_once('-')?;
        // `20261123T044154.123Z` as RFC 3339 has it.
        let part = |from: usize, to: usize| at.get(from..to);
        let (date, time) = (format!("{}-{}-{}", part(0, 4)?, part(4, 6)?, part(6, 8)?), at.get(8..)?);
        let time = format!("{}:{}:{}", time.get(0..3)?, time.get(3..5)?, time.get(5..)?);
        Some(Entry { at: format!("{date}{time}").parse().ok()?, origin: origin.parse().ok()?, path })
    }

    fn name(at: Timestamp, origin: Origin) -> String {
        let time: String = format!("{at:.3}").chars().filter(|c| !matches!(c, '-' | ':')).collect();
        format!("{time}-{}.yaml", origin.name())
    }
}

/// What waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When the former set comes back.
    pub until: Timestamp,
    /// The name of its file in the history.
    pub back_to: String,
}

/// A history that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("history `{path}` cannot be {act}: {error}")]
pub struct HistoryError {
    path: PathBuf,
    act: &'static str,
    error: io::Error,
}

/// The directory of an instance.
#[derive(Clone, Debug)]
pub struct History(PathBuf);

impl History {
    /// `<state-directory>/<instance>.history`; made when something is to be kept.
    pub fn of(state_directory: &Path, instance: &str) -> History {
        History(state_directory.join(format!("{instance}.history")))
    }

    /// The directory of that name.
    pub fn at(directory: &Path) -> History {
        History(directory.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn failed(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> HistoryError {
        let path = path.to_owned();
        move |error| HistoryError { path, act, error }
    }

    /// All sets, the oldest first. Files of other names are not looked at.
    pub fn entries(&self) -> Result<Vec<Entry>, HistoryError> {
        let read = || -> io::Result<Vec<Entry>> {
            let mut entries = Vec::new();
            for file in fs::read_dir(&self.0)? {
                entries.extend(Entry::of(file?.path()));
            }
            entries.sort();
            Ok(entries)
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result.map_err(History::failed(&self.0, "read")),
        }
    }

    /// The set in force.
    pub fn newest(&self) -> Result<Option<Entry>, HistoryError> {
        Ok(self.entries()?.pop())
    }

    /// Keeps a set as the one in force from `now` on. When this returns it is on the disk; until then the former one
    /// is the newest. A clock that went back does not change the order: it is then a millisecond after the former one.
    pub fn accept(&self, text: &str, origin: Origin, now: Timestamp) -> Result<Entry, HistoryError> {
        let newest = self.newest()?.map(|entry| entry.at);
        let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        let after = newest.and_then(|at| Timestamp::from_millisecond(at.as_millisecond() + 1).ok());
        let at = after.map_or(now, |after| after.max(now));
        let path = self.0.join(Entry::name(at, origin));
        self.write(&path, text)?;
        Ok(Entry { at, origin, path })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), HistoryError> {
        let new = self.0.join("new");
        let write = || {
            fs::create_dir_all(&self.0)?;
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fault("history-written");
            fs::rename(&new, path)?;
            fault("history-renamed");
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&new);
            History::failed(path, "written")(error)
        })
    }

    /// What waits for a confirmation. A file that makes no sense is an error: nobody may take it for a confirmation.
    pub fn pending(&self) -> Result<Option<Pending>, HistoryError> {
        let path = self.0.join("pending");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(History::failed(&path, "read")(error)),
        };
        let parse = || {
            let (until, back_to) = text.strip_suffix('\n')?.split_once(' ')?;
            Some(Pending { until: until.parse().ok()?, back_to: back_to.to_owned() })
        };
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "it does not say `TIME FILE`");
        parse().map(Some).ok_or_else(|| History::failed(&path, "understood")(broken()))
    }

    /// From now on a restart finds that the set is to go back, unless it is confirmed.
    pub fn set_pending(&self, pending: &Pending) -> Result<(), HistoryError> {
        self.write(&self.0.join("pending"), &format!("{} {}\n", pending.until, pending.back_to))
    }

    /// Confirmed, or gone back.
    pub fn clear_pending(&self) -> Result<(), HistoryError> {
        let path = self.0.join("pending");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(History::failed(&path, "removed")(error)),
            Ok(()) => File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(History::failed(&self.0, "synced")),
        }
    }

    /// The text of a set.
    pub fn text(&self, entry: &Entry) -> Result<String, HistoryError> {
        super::files::read(&entry.path).map_err(History::failed(&entry.path, "read"))
    }

    /// The version of a set: its text begins with it.
    pub fn version(&self, entry: &Entry) -> Result<u64, HistoryError> {
        let mut line = String::new();
        let read = File::open(&entry.path).and_then(|file| io::BufReader::new(file).take(64).read_line(&mut line));
        read.map_err(History::failed(&entry.path, "read"))?;
        Ok(line.strip_prefix("version:").and_then(|version| version.trim().parse().ok()).unwrap_or(0))
    }

    /// The set of that file name, if it is one of the history.
    pub fn named(&self, name: &str) -> Result<Option<Entry>, HistoryError> {
        Ok(self.entries()?.into_iter().find(|entry| entry.path.file_name().is_some_and(|n| n == name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn sets_stay_in_order_and_whole() {
        let directory = std::env::temp_dir().join(format!("mapt-history-{}", std::process::id()));
        let history = History::of(&directory, "br");
        assert_eq!((history.newest().unwrap(), history.pending().unwrap()), (None, None));
        let a = history.accept("a\n", Origin::File, time("2026-11-23T04:41:54.123456Z")).unwrap();
        assert!(a.path.ends_with("br.history/20261123T044154.123Z-file.yaml"), "{a:?}");
        assert_eq!(a.at, time("2026-11-23T04:41:54.123Z"));
        let b = history.accept("b\n", Origin::Pushed, time("2026-11-24T00:00:00Z")).unwrap();
        // The clock went back by a day.
        let c = history.accept("c\n", Origin::Returned, time("2026-11-23T00:00:00Z")).unwrap();
        assert_eq!(c.at, time("2026-11-24T00:00:00.001Z"));
        for (name, text) in
            [("new", "half"), ("x.yaml", ""), ("20261199T044154.123Z-file.yaml", ""), ("1-file.yaml", "")]
        {
            fs::write(history.path().join(name), text).unwrap();
        }
        assert_eq!(history.entries().unwrap(), [a.clone(), b.clone(), c.clone()]);
        assert_eq!(history.newest().unwrap(), Some(c));
        assert_eq!(history.text(&b).unwrap(), "b\n");
        assert_eq!(history.named("20261123T044154.123Z-file.yaml").unwrap(), Some(a));
        assert_eq!(history.named("20261123T044154.124Z-file.yaml").unwrap(), None);

        let pending = Pending { until: time("2026-11-24T00:05:00Z"), back_to: "20261123T044154.123Z-file.yaml".into() };
        history.set_pending(&pending).unwrap();
        assert_eq!(history.pending().unwrap(), Some(pending));
        history.clear_pending().unwrap();
        history.clear_pending().unwrap();
        assert_eq!(history.pending().unwrap(), None);
        fs::write(history.path().join("pending"), "2026-11-24T00:05").unwrap();
        let error = history.pending().unwrap_err().to_string();
        assert!(error.contains("pending") && error.contains("TIME FILE"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
