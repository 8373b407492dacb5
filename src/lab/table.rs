//! The one table that a run ends with.

use std::io::IsTerminal;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use super::LabError;

/// What a check that passed has to show.
#[derive(Debug, Default)]
pub struct Figures {
    /// A few words for the table.
    pub text: String,
    /// The same as numbers, for `--json`; keys in kebab-case with their unit.
    pub values: Map<String, Value>,
}

impl Figures {
    /// Words alone.
    pub fn text(text: impl Into<String>) -> Self {
        Figures { text: text.into(), values: Map::new() }
    }

    /// Adds a number.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.to_owned(), value.into());
        self
    }
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// How the rules forwarded: `mesh`, `hub`, or `both` for what is not particular to one.
    pub mode: &'static str,
    /// What was tried.
    pub check: String,
    /// From where to where.
    pub path: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was measured.
    pub figures: String,
    /// The same as numbers.
    pub values: Map<String, Value>,
    /// What failed: the step, the command, its last lines, the daemons' counters.
    pub error: Option<String>,
}

/// Rows in the order in which they ran.
#[derive(Debug)]
pub struct Table {
    start: Instant,
    /// The mode of rows to come.
    pub mode: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// An empty one; progress is timed from now.
    pub fn new(start: Instant) -> Self {
        Table { start, mode: "both", rows: Vec::new() }
    }

    /// Runs a check, shows progress on standard error, adds a row. `explain` is asked for more when it failed.
    /// Only an interrupt is passed on.
    pub fn check(
        &mut self,
        check: &str,
        path: &str,
        run: impl FnOnce() -> Result<Figures, LabError>,
        explain: impl FnOnce() -> String,
    ) -> Result<bool, LabError> {
        self.progress(&format!("{:<5} {check}, {path} ...", self.mode), false);
        let result = run();
        if let Err(LabError::Interrupted) = result {
            return Err(LabError::Interrupted);
        }
        let passed = result.is_ok();
        let (figures, values, error) = match result {
            Ok(figures) => (figures.text, figures.values, None),
            Err(e) => {
                let more = explain();
                let error = if more.is_empty() { e.to_string() } else { format!("{e}\n{more}") };
                (e.in_short(), Map::new(), Some(error))
            }
        };
        let verdict = if passed { "ok" } else { "FAILED" };
        self.progress(&format!("{:<5} {check}, {path}: {verdict}, {figures}", self.mode), true);
        self.rows.push(Row {
            mode: self.mode,
            check: check.to_owned(),
            path: path.to_owned(),
            passed,
            figures,
            values,
            error,
        });
        Ok(passed)
    }

    /// A line of progress on standard error. An unfinished one is shown on a terminal only, and overwritten.
    pub fn progress(&self, line: &str, finished: bool) {
        let terminal = std::io::stderr().is_terminal();
        let seconds = self.start.elapsed().as_secs_f64();
        match (terminal, finished) {
            (true, true) => eprintln!("\r\x1b[K{seconds:6.1} s  {line}"),
            (true, false) => eprint!("\r\x1b[K{seconds:6.1} s  {line}"),
            (false, true) => eprintln!("{seconds:6.1} s  {line}"),
            (false, false) => {}
        }
    }

    /// Whether there are rows and all passed.
    pub fn all_passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.passed)
    }

    /// Passed and all.
    pub fn counts(&self) -> (usize, usize) {
        (self.rows.iter().filter(|row| row.passed).count(), self.rows.len())
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// As text, failures explained below.
    pub fn render(&self) -> String {
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let verdict = if row.passed { "ok" } else { "FAILED" };
                [row.mode, &row.check, &row.path, verdict, &row.figures].map(str::to_owned).to_vec()
            })
            .collect();
        let mut text = columns(&["mode", "check", "path", "result", "figures"], &cells);
        for row in self.rows.iter().filter(|row| !row.passed) {
            text.push_str(&format!("\nFAILED: {}, {} ({})\n", row.check, row.path, row.mode));
            for line in row.error.as_deref().unwrap_or_default().lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }
}

/// Left-aligned columns under a head, each as wide as its widest cell.
pub fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let width = |(column, head): (usize, &&str)| {
        rows.iter().map(|row| cell(row, column)).chain([head.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = head.iter().enumerate().map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Table {
        let mut table = Table::new(Instant::now());
        table.mode = "mesh";
        let good = || Ok(Figures::text("0.1 ms").with("rtt-ms", 0.1));
        assert!(table.check("ping", "home 1 → server", good, String::new).unwrap());
        table
    }

    #[test]
    fn a_failed_row_fails_the_table_and_is_quoted() {
        let mut table = filled();
        assert!(table.all_passed());
        let bad = || Err(LabError::failed("dig @198.51.100.2", "no servers could be reached"));
        assert!(!table.check("DNS", "home 2 → server", bad, || "counters: 7".into()).unwrap());
        assert!(!table.all_passed());
        assert_eq!(table.counts(), (1, 2));
        let text = table.render();
        for part in ["FAILED: DNS, home 2 → server", "no servers could be reached", "counters: 7"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn an_interrupt_is_no_row() {
        let mut table = filled();
        let stopped = table.check("curl", "home 1 → server", || Err(LabError::Interrupted), String::new);
        assert!(matches!(stopped, Err(LabError::Interrupted)));
        assert_eq!(table.counts(), (1, 1));
    }

    #[test]
    fn an_empty_table_has_not_passed() {
        assert!(!Table::new(Instant::now()).all_passed());
    }

    #[test]
    fn columns_line_up() {
        let text = columns(&["a", "b"], &[vec!["→→→".into(), "1".into()], vec!["x".into(), "22".into()]]);
        assert_eq!(text, "a    b\n---  --\n→→→  1\nx    22\n");
    }

    #[test]
    fn json_has_kebab_case_keys() {
        let table = filled();
        let json = serde_json::to_value(table.rows()).unwrap();
        assert_eq!(json[0]["values"]["rtt-ms"], 0.1);
        assert_eq!(json[0]["passed"], true);
    }
}
