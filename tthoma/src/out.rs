//! Forms of output.

/// A CSV field, quoted if it must be.
pub(crate) fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_if_they_must_be() {
        assert_eq!([csv_field("a"), csv_field("a,\"b\"")], ["a", "\"a,\"\"b\"\"\""]);
    }
}
