//! The file in which a CE leaves its flows to the next process: `<state-directory>/<instance>.mappings`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

use super::plan::{Plan, Program};
use super::run::{self, Stopped};
use crate::ops::engine::Machine;
use crate::ops::saved::{self, MAX_LINE, Moment, Owner, SavedError};

/// Lines beside those of flows, and what they hold at most.
const OTHER_LINES: usize = 5;

/// Flows of a CE that the next process may take.
#[derive(Clone, Debug)]
pub struct SavedFile(PathBuf);

/// Why a file was not written, or not read.
#[derive(Debug, thiserror::Error)]
pub enum SavedFileError {
    /// The system refused.
    #[error("{path} cannot be {act} ({error}): `state-directory` must be a directory that the daemon may write to")]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// Somebody else may have written it.
    #[error("{0} is not believed: {1}")]
    Foreign(PathBuf, String),
    /// It is not what a daemon writes.
    #[error("{0}, {1}; no flow is restored")]
    Text(PathBuf, SavedError),
    /// It is older than `napt.restore-within`, or its age is unknown.
    #[error("{0}: {1}; no flow is restored")]
    Old(PathBuf, String),
    /// Its flows are another customer's.
    #[error("{0} is of {1}, and this CE has {2}; no flow is restored")]
    Other(PathBuf, String, String),
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// Flows that live again, those that had expired, and those that could not be.
    pub flows: crate::ops::saved::Restored,
    /// How long nobody had translated.
    pub away: Duration,
}

impl SavedFile {
    /// Of an instance.
    pub fn new(directory: &Path, instance: &str) -> SavedFile {
        SavedFile(directory.join(format!("{instance}.mappings")))
    }

    /// Of a CE with `state-directory`.
    fn of(plan: &Plan) -> Option<SavedFile> {
        let directory = plan.state_directory.as_ref().filter(|_| plan.program == Program::Ce)?;
        Some(SavedFile::new(directory, &plan.instance))
    }

    fn error(&self, act: &'static str) -> impl FnOnce(io::Error) -> SavedFileError {
        let path = self.0.clone();
        move |error| SavedFileError::System { path, act, error }
    }

    /// Writes the flows that live at `now`, the time of the engine's clock; how many. `None`, and no file, for a BR and
    /// for a CE without NAPT. To be called when the engine's thread has ended. A reader sees a whole file or none.
    pub fn save(&self, machine: &Machine, now: Duration) -> Result<Option<usize>, SavedFileError> {
        let Some(napt) = machine.ce().and_then(|ce| ce.napt()) else { return Ok(None) };
        let new = self.0.with_extension("mappings.new");
        let write = || {
            let at = moment()?;
            // Whoever made it before: what is written is in a file of our own.
            if let Err(error) = std::fs::remove_file(&new)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let mut out = io::BufWriter::with_capacity(1 << 16, file);
            let count = saved::write(&mut out, Owner::new(napt.address(), napt.port_set()), &at, napt, now)?;
            out.into_inner()?.sync_all()?;
            std::fs::rename(&new, &self.0)?;
            Ok(count)
        };
        write().map(Some).map_err(|error| {
            let _ = std::fs::remove_file(&new);
            self.error("written")(error)
        })
    }

    /// Gives an engine that has not begun the flows that a former process left at most `within` ago; `now` is where the
    /// engine's clock begins. `None` where there is no file, and where the engine has no NAPT.
    ///
    /// The file is gone afterwards, whatever was in it: nobody restores it twice. One that others may have written, that
    /// is cut off, too old or of another customer is refused as a whole.
    pub fn restore(
        &self,
        machine: &mut Machine,
        within: Duration,
        now: Duration,
    ) -> Result<Option<Back>, SavedFileError> {
        let Some(napt) = machine.ce_mut().and_then(|ce| ce.napt_mut()) else { return Ok(None) };
        let most = napt.most_saved();
        let Some(text) = self.take(most)? else { return Ok(None) };
        let text = String::from_utf8(text).map_err(|_| self.foreign("it is no text"))?;
        let mut saved = saved::parse(&text, most).map_err(|error| SavedFileError::Text(self.0.clone(), error))?;
        let here = moment().map_err(self.error("dated"))?;
        let old = |why: String| Err(SavedFileError::Old(self.0.clone(), why));
        let Some(away) = here.since(&saved.at) else { return old("it was written in the future".into()) };
        if away > within {
            return old(format!("it is {} s old, and `napt.restore-within` is {} s", away.as_secs(), within.as_secs()));
        }
        let owner = Owner::new(napt.address(), napt.port_set());
        if saved.owner != owner {
            return Err(SavedFileError::Other(self.0.clone(), saved.owner.to_string(), owner.to_string()));
        }
        Ok(Some(Back { flows: napt.restore(&mut saved.flows, &saved.mappings, away, now), away }))
    }

    /// Removes the file; no flow is restored from it.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}", self.error("removed")(error));
        }
    }

    fn foreign(&self, why: impl Into<String>) -> SavedFileError {
        SavedFileError::Foreign(self.0.clone(), why.into())
    }

    /// Reads the file and removes it. One that is not ours stays where it is.
    fn take(&self, most: usize) -> Result<Option<Vec<u8>>, SavedFileError> {
        let options = O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(options).open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error("read")(error)),
        };
        let found = file.metadata().map_err(self.error("read"))?;
        if !found.is_file() {
            return Err(self.foreign("it is no regular file"));
        }
        if found.uid() != geteuid().as_raw() {
            return Err(self.foreign(format!("user {} owns it", found.uid())));
        }
        if found.mode() & 0o7777 != 0o600 {
            return Err(self.foreign(format!("its mode is {:o}, not 600", found.mode() & 0o7777)));
        }
        std::fs::remove_file(&self.0).map_err(self.error("removed"))?;
        let limit = ((most + OTHER_LINES) * (MAX_LINE + 1)) as u64;
        let mut text = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut text).map_err(self.error("read"))?;
        if read as u64 > limit {
            return Err(self.foreign(format!("it is longer than the {limit} octets of {most} flows")));
        }
        Ok(Some(text))
    }
}

/// Gives the engine of a CE what a former process left. What goes wrong is logged and no more: flows can be made anew.
pub fn take_up(plan: &Plan, engines: &mut [Machine]) {
    let (Some(file), Some(engine)) = (SavedFile::of(plan), engines.first_mut()) else { return };
    if plan.restore_within.is_zero() {
        return file.remove();
    }
    match file.restore(engine, plan.restore_within, run::BEGIN) {
        Ok(None) => {}
        Ok(Some(Back { flows, away })) => tracing::info!(
            "{} flows live on after {} s without translation; {} have expired, {} could not be restored; {} mappings by PCP",
            flows.taken,
            away.as_secs(),
            flows.expired,
            flows.refused,
            flows.mappings
        ),
        Err(error) => tracing::warn!("{error}"),
    }
}

/// Leaves the flows of a CE to the next process.
pub fn leave(plan: &Plan, stopped: &Stopped<Machine>) {
    let (Some(file), Some(engine)) = (SavedFile::of(plan), stopped.engines.first()) else { return };
    if plan.restore_within.is_zero() {
        return;
    }
    match file.save(engine, stopped.now) {
        Ok(None) => {}
        Ok(Some(count)) => tracing::info!("{count} flows are left to the next process"),
        Err(error) => tracing::warn!("{error}"),
    }
}

/// Now, by both clocks.
fn moment() -> io::Result<Moment> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let up = std::fs::read_to_string("/proc/uptime")?;
    let up = up.split_ascii_whitespace().next().and_then(|seconds| seconds.parse::<f64>().ok());
    let up = up.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Moment { wall, boot, up: up.ok_or(io::ErrorKind::InvalidData)? })
}
