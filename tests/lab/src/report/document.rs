//! Marks in a document: comments, which readers do not see.

use anyhow::{Result, bail};

const END: &str = "<!-- end of figures -->";

/// The text with `block` between the marks of `name`; nothing when it has no such marks.
pub(super) fn replace(text: &str, name: &str, block: &str) -> Result<Option<String>> {
    let begin = format!("<!-- figures: {name} -->");
    let Some((before, rest)) = text.split_once(&begin) else {
        return Ok(None);
    };
    let Some((inside, after)) = rest.split_once(END) else {
        bail!("{begin} has no end: add a line {END}");
    };
    if inside.contains("<!-- figures: ") {
        bail!("{begin} has no end before the next: add a line {END}");
    }
    Ok(Some(format!(
        "{before}{begin}\n{}\n{END}{after}",
        block.trim_end()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- figures: x -->\nold\n<!-- end of figures -->\nb\n";
        let new = replace(text, "x", "new\n").unwrap().unwrap();
        assert_eq!(
            new,
            "a\n<!-- figures: x -->\nnew\n<!-- end of figures -->\nb\n"
        );
        assert_eq!(replace(text, "y", "new").unwrap(), None);
    }

    #[test]
    fn mark_without_an_end_is_an_error() {
        assert!(replace("<!-- figures: x -->\n", "x", "new").is_err());
        let two = "<!-- figures: x -->\n<!-- figures: y -->\n<!-- end of figures -->\n";
        assert!(replace(two, "x", "new").is_err());
    }
}
