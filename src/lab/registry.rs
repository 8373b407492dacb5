//! Which labs there are. Each one has a file in `/run/mapt-lab` that it locks for as long as it lives, so that
//! another run can tell a living lab from the leftovers of a killed one, whatever process ids were used since.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::LabError;
use super::netns::{self, Netns};
use super::process::TICK;

/// What every name of ours begins with: namespaces, directories, registry files.
pub const PREFIX: &str = "mapt-lab-";

/// Where the files are.
const DIRECTORY: &str = "/run/mapt-lab";

/// What a file says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Entry {
    /// Where the lab keeps its files.
    directory: PathBuf,
    /// Whether `--keep` left it up on purpose.
    kept: bool,
}

/// A lab's place on the machine: its name, its directory, its lock.
#[derive(Debug)]
pub struct Site {
    name: String,
    directory: PathBuf,
    file: File,
}

impl Site {
    /// Takes a name no other lab has (`mapt-lab-PID`) and makes a directory for it.
    pub fn claim() -> Result<Site, LabError> {
        let _guard = guard()?;
        let name = format!("{PREFIX}{}", std::process::id());
        let path = entry_path(&name);
        let failed = |e: std::io::Error| LabError::failed(format!("write {}", path.display()), e);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        file.try_lock().map_err(|e| LabError::failed(format!("lock {}", path.display()), e))?;
        let template = std::env::temp_dir().join(format!("{name}-XXXXXX"));
        let directory = nix::unistd::mkdtemp(&template)
            .map_err(|e| LabError::failed(format!("make a directory {}", template.display()), e))?;
        let mut site = Site { name, directory, file };
        site.write(false).map_err(failed)?;
        Ok(site)
    }

    /// `mapt-lab-PID`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of its own, readable by root alone.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A namespace of this lab.
    pub fn netns(&self, role: &str) -> Netns {
        Netns::named(format!("{}-{role}", self.name))
    }

    /// Says that it stays up after we are gone.
    pub fn keep(mut self) -> Result<(), LabError> {
        let path = entry_path(&self.name);
        self.write(true).map_err(|e| LabError::failed(format!("write {}", path.display()), e))
    }

    /// Removes everything that bears this lab's name.
    pub fn remove(self) -> Result<(), LabError> {
        let _guard = guard()?;
        sweep(&self.name, &self.directory)
    }

    fn write(&mut self, kept: bool) -> std::io::Result<()> {
        let entry = Entry { directory: self.directory.clone(), kept };
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(serde_json::to_string(&entry)?.as_bytes())
    }
}

/// What [`clean`] did and left alone.
#[derive(Debug, Default, Serialize)]
pub struct Cleaned {
    /// Labs whose process was gone: removed.
    pub removed: Vec<String>,
    /// Labs that `--keep` left up.
    pub kept: Vec<String>,
    /// Labs at work.
    pub running: Vec<String>,
}

/// Removes what killed labs left, and nothing of a living or kept one.
pub fn clean() -> Result<Cleaned, LabError> {
    let _guard = guard()?;
    let mut cleaned = Cleaned::default();
    for name in known() {
        match look(&name)? {
            Standing::Running => cleaned.running.push(name),
            Standing::Kept(_) => cleaned.kept.push(name),
            Standing::Left(entry) => {
                sweep(&name, &entry.directory)?;
                cleaned.removed.push(name);
            }
        }
    }
    Ok(cleaned)
}

/// Takes down a lab that `--keep` left up, or what a killed one left. `name` may be the number alone.
pub fn down(name: &str) -> Result<String, LabError> {
    let _guard = guard()?;
    let name = if name.starts_with(PREFIX) { name.to_owned() } else { format!("{PREFIX}{name}") };
    if !known().contains(&name) {
        return Err(LabError::failed(format!("take down {name}"), "there is no such lab"));
    }
    match look(&name)? {
        Standing::Running => Err(LabError::failed(format!("take down {name}"), "it is at work; stop its process")),
        Standing::Kept(entry) | Standing::Left(entry) => {
            sweep(&name, &entry.directory)?;
            Ok(name)
        }
    }
}

enum Standing {
    Running,
    Kept(Entry),
    Left(Entry),
}

fn look(name: &str) -> Result<Standing, LabError> {
    let path = entry_path(name);
    let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        // Namespaces without a file: the lab died while it was swept.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Left(Entry::default())),
        Err(e) => return Err(LabError::failed(format!("open {}", path.display()), e)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(Standing::Running),
        Err(fs::TryLockError::Error(e)) => return Err(LabError::failed(format!("lock {}", path.display()), e)),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| LabError::failed(format!("read {}", path.display()), e))?;
    let entry: Entry = serde_json::from_str(&text).unwrap_or_default();
    Ok(if entry.kept { Standing::Kept(entry) } else { Standing::Left(entry) })
}

/// Every lab that has a file or a namespace.
fn known() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(DIRECTORY)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    for netns in netns::names(PREFIX) {
        // mapt-lab-PID-role
        if let Some((lab, _)) = netns.rsplit_once('-') {
            names.push(lab.to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Ends every process in the lab's namespaces, then removes these, its directory and its file.
fn sweep(name: &str, directory: &Path) -> Result<(), LabError> {
    let own = format!("{name}-");
    let spaces: Vec<Netns> = netns::names(&own).into_iter().map(Netns::named).collect();
    let ours = std::process::id().cast_signed();
    let start = Instant::now();
    loop {
        let pids: Vec<i32> = spaces.iter().flat_map(Netns::pids).filter(|&pid| pid != ours).collect();
        if pids.is_empty() || start.elapsed() > Duration::from_secs(5) {
            break;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(TICK);
    }
    let mut result = Ok(());
    for space in &spaces {
        let deleted = space.delete();
        result = result.and(deleted);
    }
    // The name is checked because the path comes from a file.
    let is_ours = directory.file_name().is_some_and(|last| last.to_string_lossy().starts_with(&own));
    if is_ours && directory.is_dir() {
        let removed =
            fs::remove_dir_all(directory).map_err(|e| LabError::failed(format!("remove {}", directory.display()), e));
        result = result.and(removed);
    }
    // Last, so that a sweep that failed is found again.
    if result.is_ok() {
        let _ = fs::remove_file(entry_path(name));
    }
    result
}

fn entry_path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// One claimer or cleaner at a time on the machine.
fn guard() -> Result<File, LabError> {
    let failed = |e: std::io::Error| LabError::failed(format!("use {DIRECTORY}"), e);
    fs::create_dir_all(DIRECTORY).map_err(failed)?;
    let file = File::create(Path::new(DIRECTORY).join(".lock")).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}
