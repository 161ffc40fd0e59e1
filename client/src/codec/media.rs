//! Content types taken apart.

/// A content type without its parameters: `text/plain; charset=utf-8` is `text/plain`.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim()
}

/// Whether a content type is one of these, whatever its parameters.
pub(super) fn is_one_of(content_type: &str, names: &[&str]) -> bool {
    names.iter().any(|name| essence(content_type).eq_ignore_ascii_case(name))
}

/// Whether the essence of a content type ends with this.
pub(super) fn has_suffix(content_type: &str, suffix: &str) -> bool {
    essence(content_type).to_ascii_lowercase().ends_with(suffix)
}

/// The value of a parameter, without quotes around it.
pub(super) fn parameter<'a>(content_type: &'a str, name: &str) -> Option<&'a str> {
    let named = |parameter: &'a str| {
        let (found, value) = parameter.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    };
    content_type.split(';').skip(1).find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_has_an_essence_and_parameters() {
        let content_type = "application/protobuf ; encoding=binary; Proto=\"a.B\"";
        assert_eq!(essence(content_type), "application/protobuf");
        assert_eq!(parameter(content_type, "proto"), Some("a.B"));
        assert_eq!(parameter(content_type, "version"), None);
        assert_eq!(parameter("proto=a.B", "proto"), None);
    }
}
