//! Errors for people: path, line, column, value, expectation, section.

/// One thing that is wrong with a configuration or rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file it stands in, as named by whoever asked.
    pub file: String,
    /// `rules[1].ea-len`; empty where the whole text is no YAML.
    pub path: String,
    /// From 1; 0 where unknown.
    pub line: usize,
    /// From 1; 0 where unknown.
    pub column: usize,
    /// The value and what was expected.
    pub message: String,
    /// `RFC 7597 §5.2`, or empty.
    pub rfc: String,
}
