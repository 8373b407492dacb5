//! Errors for people: path, line, column, value, expectation, section.
use std::fmt;

/// Most errors that one file may give; the rest is only counted.
const MOST: usize = 10_000;
/// Farthest column that is looked for in its line, which may be megabytes long.
const FARTHEST: u32 = 10_000;
/// Columns of a source line that are shown.
const SHOWN: usize = 110;

/// One thing that is wrong with a configuration or rule file.
///
/// Displayed as `file:line:column: path: message (section)`, then the source line and a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file it stands in, as named by whoever asked.
    pub file: String,
    /// `rules[1].ea-len`; empty where the whole text is meant.
    pub path: String,
    /// From 1; 0 where unknown.
    pub line: usize,
    /// From 1, in characters; 0 where unknown.
    pub column: usize,
    /// The value and what was expected.
    pub message: String,
    /// `RFC 7597 §5.2`, or empty.
    pub rfc: String,
    /// The source line and, below it, carets; empty where there is no place to show.
    pub excerpt: String,
}

impl ConfigError {
    /// An error about a file as a whole, such as one that cannot be read.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        ConfigError {
            file: file.to_string(),
            path: String::new(),
            line: 0,
            column: 0,
            message: message.into(),
            rfc: String::new(),
            excerpt: String::new(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.rfc.is_empty() {
            write!(f, " ({})", self.rfc)?;
        }
        if !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with a file: never without an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Each makes the file unusable; in the order of the text, the checked file before those it names.
    pub errors: Vec<ConfigError>,
    /// Legal, but likely not what was meant.
    pub warnings: Vec<ConfigError>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

impl From<ConfigError> for Findings {
    fn from(error: ConfigError) -> Self {
        Findings { errors: vec![error], warnings: Vec::new() }
    }
}

/// A valid value and what should be said about it nevertheless.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// Legal, but likely not what was meant.
    pub warnings: Vec<ConfigError>,
}

/// Where in the text something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Characters to underline.
    pub len: u32,
}

/// Where in the tree something stands; made on the stack, written out only for an error.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(&tame(key)),
            Path::Key(parent, key) => write!(f, "{parent}.{}", tame(key)),
            Path::Index(parent, n) => write!(f, "{parent}[{n}]"),
        }
    }
}

/// Collects what is wrong with one text.
pub(super) struct Reporter<'t> {
    file: &'t str,
    text: &'t str,
    /// Byte offsets of the lines, found when the first error needs them.
    lines: Vec<usize>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
    omitted: usize,
}

impl<'t> Reporter<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Reporter { file, text, lines: Vec::new(), errors: Vec::new(), warnings: Vec::new(), omitted: 0 }
    }

    pub fn error(&mut self, path: Path<'_>, at: Mark, message: impl Into<String>, rfc: &str) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        let error = self.make(path, at, message.into(), rfc);
        self.errors.push(error);
    }

    pub fn warning(&mut self, path: Path<'_>, at: Mark, message: impl Into<String>, rfc: &str) {
        if self.warnings.len() < MOST {
            let warning = self.make(path, at, message.into(), rfc);
            self.warnings.push(warning);
        }
    }

    /// So far; compare two counts to learn whether a part is sound.
    pub fn errors(&self) -> usize {
        self.errors.len() + self.omitted
    }

    /// Whether further errors are only counted.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= MOST
    }

    /// What was found, in the order of the text.
    pub fn finish(mut self) -> Findings {
        self.errors.sort_by_key(|e| (e.line, e.column));
        self.warnings.sort_by_key(|e| (e.line, e.column));
        if self.omitted > 0 {
            let message = format!("{} more errors are not shown", self.omitted);
            self.errors.push(ConfigError::of_file(self.file, message));
        }
        Findings { errors: self.errors, warnings: self.warnings }
    }

    fn make(&mut self, path: Path<'_>, at: Mark, message: String, rfc: &str) -> ConfigError {
        ConfigError {
            file: self.file.to_string(),
            path: path.to_string(),
            line: at.line as usize,
            column: at.column as usize,
            message,
            rfc: rfc.to_string(),
            excerpt: self.excerpt(at),
        }
    }

    fn excerpt(&mut self, at: Mark) -> String {
        if at.line == 0 {
            return String::new();
        }
        if self.lines.is_empty() {
            self.lines.push(0);
            // A carriage return alone ends a line too (YAML 1.2 §5.4).
            let bytes = self.text.as_bytes();
            let ends = |(n, b): &(usize, &u8)| **b == b'\n' || **b == b'\r' && bytes.get(n + 1) != Some(&b'\n');
            self.lines.extend(bytes.iter().enumerate().filter(ends).map(|(n, _)| n + 1));
        }
        let Some(&start) = self.lines.get(at.line as usize - 1) else { return String::new() };
        let end = self.lines.get(at.line as usize).map_or(self.text.len(), |next| next - 1);
        let line = self.text[start..end].trim_end_matches('\r');
        if at.column > FARTHEST {
            return String::new();
        }
        let column = (at.column as usize).saturating_sub(1);
        let skip = if column > SHOWN * 3 / 4 { column - SHOWN / 2 } else { 0 };
        let mut shown = String::new();
        let mut width = 0;
        for c in line.chars().skip(skip).take(SHOWN) {
            shown.push(if c == '\t' || !c.is_control() { c } else { '?' });
            width += 1;
        }
        let number = at.line.to_string();
        let mut out = format!("{number:>5} | {shown}\n{:>5} | ", "");
        let ahead = (column - skip).min(width);
        out.extend(shown.chars().take(ahead).map(|c| if c == '\t' { '\t' } else { ' ' }));
        let carets = (at.len as usize).clamp(1, (width - ahead).max(1));
        out.extend(std::iter::repeat_n('^', carets));
        out
    }
}

/// Text of a file as it may be shown on a terminal: no control characters, not endless.
pub(super) fn tame(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_line_and_caret() {
        let text = "a: 1\n\trules: x\n";
        let mut r = Reporter::new("r.yaml", text);
        let path = Path::Index(&Path::Key(&Path::Root, "rules"), 1);
        r.error(Path::Key(&path, "ea-len"), Mark { line: 2, column: 9, len: 9 }, "`x` is wrong", "RFC 7597 §5.2");
        let findings = r.finish();
        assert_eq!(
            findings.to_string(),
            "r.yaml:2:9: rules[1].ea-len: `x` is wrong (RFC 7597 §5.2)\n    2 | \trules: x\n      | \t       ^"
        );
    }

    #[test]
    fn a_long_line_is_cropped_around_its_column() {
        let text = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let mut r = Reporter::new("r.yaml", &text);
        r.error(Path::Root, Mark { line: 1, column: 5001, len: 1 }, "here", "");
        let out = r.finish().to_string();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[1].len() < 130, "{out}");
        assert_eq!(lines[1].find('X'), lines[2].find('^'));
    }

    #[test]
    fn places_outside_the_text_do_no_harm() {
        let mut r = Reporter::new("r.yaml", "ab");
        for (line, column) in [(0, 0), (1, 0), (1, 3), (1, 90), (1, 4_000_000_000), (7, 1)] {
            r.error(Path::Root, Mark { line, column, len: 4_000_000_000 }, "x", "");
        }
        assert_eq!(r.finish().errors.len(), 6);
    }

    #[test]
    fn errors_are_bounded() {
        let mut r = Reporter::new("r.yaml", "a");
        for _ in 0..MOST + 5 {
            r.error(Path::Root, Mark { line: 1, column: 1, len: 1 }, "x", "");
        }
        let findings = r.finish();
        assert_eq!(findings.errors.len(), MOST + 1);
        assert_eq!(findings.errors[MOST].to_string(), "r.yaml: 5 more errors are not shown");
    }
}
