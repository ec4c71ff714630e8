//! The JSON Schema of a result file, generated from the types: what other tools can check a file against.
//!
//! `src/schema/result.schema.json` is what [`text`] gives, kept beside the types so that it can be read and linked to without
//! building anything; a test fails when the types have moved on.

use serde_json::Value;

use super::{RunResult, SCHEMA_VERSION};

/// JSON Schema (draft 2020-12) of [`RunResult`]; descriptions are the types' own documentation.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(RunResult);
    schema.insert("title".into(), format!("kvprof result file, version {SCHEMA_VERSION}").into());
    schema.to_value()
}

/// [`json_schema`] as the text of a file.
pub fn text() -> String {
    format!("{:#}\n", json_schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_in_the_repository_is_that_of_the_types() {
        let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema/result.schema.json"))
            .unwrap_or_default();
        let differs = text().lines().zip(kept.lines()).position(|(new, old)| new != old);
        assert!(
            text() == kept,
            "src/schema/result.schema.json is stale (first at line {:?}); renew it with\n    \
             cargo run -- schema --output src/schema/result.schema.json",
            differs.map_or(text().lines().count().min(kept.lines().count()) + 1, |at| at + 1)
        );
    }

    #[test]
    fn every_field_is_described_and_every_reference_leads_somewhere() {
        fn walk(node: &Value, root: &Value, at: &str, wrong: &mut Vec<String>) {
            if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
                let found = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                if found.is_none() {
                    wrong.push(format!("{at}: {reference}"));
                }
            }
            for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if property.get("description").is_none() {
                    wrong.push(format!("{at}.{name}: no description"));
                }
            }
            match node {
                Value::Object(map) => {
                    map.iter().for_each(|(key, inner)| walk(inner, root, &format!("{at}.{key}"), wrong))
                }
                Value::Array(list) => list.iter().for_each(|inner| walk(inner, root, at, wrong)),
                _ => {}
            }
        }
        let schema = json_schema();
        let mut wrong = Vec::new();
        walk(&schema, &schema, "", &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let required = schema["required"].as_array().map(Vec::len);
        assert!(required > Some(8), "a result has required fields: {required:?}");
    }
}
