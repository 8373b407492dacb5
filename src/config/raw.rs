//! YAML text to a tree of nodes that know where they stand. The only file that knows the YAML library.
//!
//! Parser events are taken as they are, not through serde: a decoder by hand sees every error of a
//! file, with the place of each key and value. Anchors and aliases work within limits; tags, merge
//! keys and several documents do not.
use super::error::{Mark, tame};
use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest text, in octets: 100,000 rules with all their keys take about 30 million.
pub const MAX_TEXT: usize = 64 << 20;
/// Deepest nesting; a rule set inside a daemon's file needs 4.
const MAX_DEPTH: usize = 16;
/// Most nodes, those that aliases copy included.
const MAX_NODES: usize = 4_000_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub at: Mark,
    pub value: Value<'a>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Scalar { text: Cow<'a, str>, plain: bool },
    Seq(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

/// A key, its place and its value. Repeated keys are all there.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub key: Cow<'a, str>,
    pub at: Mark,
    pub node: Node<'a>,
}

/// Text that is no YAML, or YAML beyond the limits.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub at: Mark,
    pub message: String,
}

impl Node<'_> {
    /// An empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Seq(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|e| e.node.count()).sum(),
        }
    }
}

/// The tree of a text; an empty text is a null.
pub(super) fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    if text.len() > MAX_TEXT {
        let message = format!("the file has {} octets, the most is {MAX_TEXT}", text.len());
        return Err(SyntaxError { at: Mark::default(), message });
    }
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.disallow_directives = true;
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let marker = error.marker();
                let at = Mark { line: narrow(marker.line()), column: narrow(marker.col() + 1), len: 1 };
                let info = error.info();
                let hint = if info.contains("mapping values") {
                    " (text that ends in a colon, as IPv6 addresses may, needs quotes)"
                } else {
                    ""
                };
                return Err(SyntaxError { at, message: format!("not YAML: {}{hint}", tame(&info)) });
            }
        }
    }
    let start = Mark { line: 1, column: 1, len: 1 };
    Ok(builder.root.unwrap_or(Node { at: start, value: Value::Scalar { text: Cow::Borrowed(""), plain: true } }))
}

/// A collection that is not closed yet.
struct Open<'a> {
    node: Node<'a>,
    anchor: usize,
    key: Option<(Cow<'a, str>, Mark)>,
}

#[derive(Default)]
struct Builder<'a> {
    root: Option<Node<'a>>,
    open: Vec<Open<'a>>,
    /// Complete anchored nodes; one that is missing is still open.
    anchors: HashMap<usize, Node<'a>>,
    documents: usize,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, span: Span) -> Result<(), SyntaxError> {
        let at = mark(&span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return refuse(at, "a second YAML document begins here; one file holds one");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                no_tag(&tag, at)?;
                let value = Value::Scalar { text, plain: style == ScalarStyle::Plain };
                self.finish(Node { at, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_tag(&tag, at)?;
                self.begin(Node { at, value: Value::Seq(Vec::new()) }, anchor)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                no_tag(&tag, at)?;
                self.begin(Node { at, value: Value::Map(Vec::new()) }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.finish(node, anchor)?;
                }
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return refuse(at, "this alias stands inside what it refers to");
                };
                self.nodes = self.nodes.saturating_add(node.count());
                self.bounded(at)?;
                let node = node.clone();
                self.finish(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, node: Node<'a>, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return refuse(node.at, "the nesting is too deep");
        }
        if let Some(Open { key: None, node: Node { value: Value::Map(_), .. }, .. }) = self.open.last() {
            return refuse(node.at, "a key must be plain text");
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    fn finish(&mut self, node: Node<'a>, anchor: usize) -> Result<(), SyntaxError> {
        self.nodes += 1;
        self.bounded(node.at)?;
        if anchor != 0 {
            self.nodes = self.nodes.saturating_add(node.count());
            self.bounded(node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Seq(items), _) => items.push(node),
            (Value::Map(entries), Some((key, at))) => {
                // Where there is nothing to point at, the key it is.
                let node = if node.is_null() { Node { at, ..node } } else { node };
                entries.push(Entry { key, at, node });
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => parent.key = Some((text, node.at)),
                _ => return refuse(node.at, "a key must be plain text"),
            },
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }

    fn bounded(&self, at: Mark) -> Result<(), SyntaxError> {
        if self.nodes > MAX_NODES {
            return refuse(at, format!("more than {MAX_NODES} values, those copied by aliases included"));
        }
        Ok(())
    }
}

fn refuse<T>(at: Mark, message: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError { at, message: message.into() })
}

fn no_tag(tag: &Option<Cow<'_, Tag>>, at: Mark) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) => refuse(at, format!("the tag `{}` is not used here", tame(&tag.original()))),
        None => Ok(()),
    }
}

fn mark(span: &Span) -> Mark {
    let (start, end) = (span.start, span.end);
    let len = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Mark { line: narrow(start.line()), column: narrow(start.col() + 1), len: narrow(len.max(1)) }
}

fn narrow(n: usize) -> u32 {
    n.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node<'_>) -> String {
        let Mark { line, column, .. } = node.at;
        let value = match &node.value {
            Value::Scalar { text, plain } => format!("{text:?}{}", if *plain { "" } else { "q" }),
            Value::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let all = entries.iter().map(|e| format!("{}@{}:{}={}", e.key, e.at.line, e.at.column, show(&e.node)));
                format!("{{{}}}", all.collect::<Vec<_>>().join(" "))
            }
        };
        format!("{value}@{line}:{column}")
    }

    fn tree(text: &str) -> String {
        match parse(text) {
            Ok(node) => show(&node),
            Err(e) => format!("{}:{}: {}", e.at.line, e.at.column, e.message),
        }
    }

    #[test]
    fn keys_and_values_know_their_places() {
        assert_eq!(
            tree("# c\nversion: 7\nrules:\n  - name: \"x\"\n    ea-len: 16\n  - {a: ~}\n"),
            "{version@2:1=\"7\"@2:10 rules@3:1=[{name@4:5=\"x\"q@4:11 ea-len@5:5=\"16\"@5:13}@4:5 {a@6:6=\"~\"@6:6}@6:5]@4:3}@2:1"
        );
        assert_eq!(tree(""), "\"\"@1:1");
        assert_eq!(tree("a: 1\na: 2\n"), "{a@1:1=\"1\"@1:4 a@2:1=\"2\"@2:4}@1:1");
    }

    #[test]
    fn refusals() {
        assert_eq!(tree("a: 1\n---\nb: 2\n"), "2:1: a second YAML document begins here; one file holds one");
        assert_eq!(tree("a: !!int 5"), "1:10: the tag `!!int` is not used here");
        assert_eq!(tree("[a]: 5"), "1:1: a key must be plain text");
        assert_eq!(tree("a: &x [*x]"), "1:8: this alias stands inside what it refers to");
        assert!(tree("%YAML 1.1\n---\na: 1\n").contains("not YAML"));
        assert!(tree("a: [").contains("not YAML"), "{}", tree("a: ["));
        assert!(tree("a:\n\tb: 1\n").contains("not YAML"));
    }

    #[test]
    fn aliases_copy_within_limits() {
        assert_eq!(tree("a: &x 1\nb: *x\n"), "{a@1:1=\"1\"@1:7 b@2:1=\"1\"@1:7}@1:1");
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 9].join(",");
            bomb.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        assert!(tree(&bomb).contains("copied by aliases"), "a bomb");
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            assert!(parse(&text).is_err());
        }
        let nested = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert!(parse(&nested).is_err());
    }
}
