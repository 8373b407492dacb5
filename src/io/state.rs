//! The state file: the routes of this instance, so that the next one finds them even under another TUN's name.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::netlink::Route;

/// One route, one line: `192.0.2.0/24 dev mapt-br table 254 metric 1024 proto 182`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    destination: IpNet,
    device: String,
    table: u32,
    metric: u32,
    protocol: u8,
}

impl Line {
    /// A route by a device.
    pub fn new(route: &Route, device: &str) -> Line {
        Line {
            destination: route.destination,
            device: device.to_owned(),
            table: route.table,
            metric: route.metric,
            protocol: route.protocol,
        }
    }

    fn parse(text: &str) -> Option<Line> {
        let mut words = text.split_ascii_whitespace();
        let destination = words.next()?.parse().ok()?;
        let mut value = |key| if words.next()? == key { words.next() } else { None };
        Some(Line {
            destination,
            device: value("dev")?.to_owned(),
            table: value("table")?.parse().ok()?,
            metric: value("metric")?.parse().ok()?,
            protocol: value("proto")?.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Line { destination, device, table, metric, protocol } = self;
        write!(f, "{destination} dev {device} table {table} metric {metric} proto {protocol}")
    }
}

/// The file of one instance.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "state file {path} cannot be {act} ({error}): `state-directory` must be a directory that the daemon may write to"
)]
pub struct StateError {
    path: PathBuf,
    act: &'static str,
    error: io::Error,
}

impl StateFile {
    /// `<directory>/<instance>.routes`.
    pub fn new(directory: &Path, instance: &str) -> StateFile {
        StateFile(directory.join(format!("{instance}.routes")))
    }

    fn error(&self, act: &'static str) -> impl FnOnce(io::Error) -> StateError {
        let path = self.0.clone();
        move |error| StateError { path, act, error }
    }

    /// The lines that a former process left. Lines that make no sense are left out.
    pub fn read(&self) -> Result<HashSet<Line>, StateError> {
        match std::fs::read(&self.0) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).lines().filter_map(Line::parse).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(self.error("read")(error)),
        }
    }

    /// Writes all lines; a reader sees the old file or the new one, never half of it.
    pub fn write(&self, lines: impl IntoIterator<Item = Line>) -> Result<(), StateError> {
        let new = self.0.with_extension("routes.new");
        let write = || {
            let mut file = io::BufWriter::new(std::fs::File::create(&new)?);
            for line in lines {
                writeln!(file, "{line}")?;
            }
            file.into_inner()?.sync_all()?;
            std::fs::rename(&new, &self.0)
        };
        write().map_err(|error| {
            let _ = std::fs::remove_file(&new);
            self.error("written")(error)
        })
    }

    /// Removes it.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}", self.error("removed")(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(destination: &str, metric: u32) -> Line {
        let route = Route {
            destination: destination.parse().unwrap(),
            table: 254,
            metric,
            protocol: 182,
            mtu: Some(1480),
            source: None,
        };
        Line::new(&route, "mapt-br")
    }

    #[test]
    fn lines_come_back_and_nonsense_does_not() {
        let directory = std::env::temp_dir().join(format!("mapt-state-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = StateFile::new(&directory, "br");
        assert_eq!(file.read().unwrap(), HashSet::new());

        let lines = [line("192.0.2.0/24", 1024), line("2001:db8:ffff::/64", 7)];
        file.write(lines.clone()).unwrap();
        let text = std::fs::read_to_string(directory.join("br.routes")).unwrap();
        assert_eq!(text.lines().next(), Some("192.0.2.0/24 dev mapt-br table 254 metric 1024 proto 182"));
        std::fs::write(
            directory.join("br.routes"),
            format!("{text}198.51.100.0/24 dev\n\0\u{ff}\n10.0.0.0/40 dev x table 1 metric 1 proto 1\n"),
        )
        .unwrap();
        assert_eq!(file.read().unwrap(), HashSet::from(lines));

        file.remove();
        file.remove();
        std::fs::remove_dir(&directory).unwrap();
        let error = file.write([]).unwrap_err().to_string();
        assert!(error.contains("br.routes cannot be written") && error.contains("state-directory"), "{error}");
    }
}
