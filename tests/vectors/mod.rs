//! Reads `rfc.yaml`: a YAML list whose items are JSON objects, each starting with `- {` at the beginning of a line.

use serde_json::Value;

/// One vector.
#[derive(Clone, Debug)]
pub struct Vector {
    pub id: String,
    pub kind: String,
    /// The whole object: `in`, `out`, `domain`, `source`, `note`.
    pub value: Value,
}

impl Vector {
    pub fn input(&self, key: &str) -> &Value {
        &self.value["in"][key]
    }
    pub fn output(&self) -> &Value {
        &self.value["out"]
    }
    /// Whether the input must be refused.
    #[allow(dead_code)] // The packet vectors refuse nothing.
    pub fn refused(&self) -> bool {
        self.output().get("error").is_some()
    }
}

/// All vectors, in the order of the file.
pub fn load() -> Vec<Vector> {
    let text = include_str!("rfc.yaml");
    let (_, list) = text.split_once("\nvectors:\n- ").expect("the list `vectors`");
    list.split("\n- ")
        .map(|item| {
            // A comment line may stand between items.
            let json: Vec<&str> = item.lines().filter(|line| !line.starts_with('#')).collect();
            let value: Value = serde_json::from_str(&json.join("\n")).unwrap_or_else(|e| panic!("{e}: {item}"));
            let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("no {key}: {item}")).to_owned();
            Vector { id: text("id"), kind: text("kind"), value }
        })
        .collect()
}
