//! Commands as words, for a shell that takes text.

/// One word that every shell of the Bourne family, and csh, reads as it is.
pub(super) fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=+,:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    // csh reads `!` as a reference to its history even inside quotes.
    let quoted: String = text
        .chars()
        .map(|char| match char {
            '\'' => "'\\''".to_owned(),
            '!' => "'\\!'".to_owned(),
            other => other.to_string(),
        })
        .collect();
    format!("'{quoted}'")
}

/// A command line of these words.
pub(super) fn line<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|text| word(text.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gives_back_the_words_that_it_was_given() {
        let words = ["plain", "", "two words", "it's", "$(reboot) `id` ; rm -rf / \\ \" * ~ # & | < > \n!", "ä€"];
        let command = format!("for word in {}; do printf '%s\\0' \"$word\"; done", line(words));
        let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_terminator('\0').collect::<Vec<_>>(), words);
    }

    #[test]
    fn words_without_meaning_for_a_shell_stay_readable() {
        assert_eq!(
            line(["/tmp/cperf-me/bin/cperf-0a", "cp-node", "agent"]),
            "/tmp/cperf-me/bin/cperf-0a cp-node agent"
        );
    }
}
