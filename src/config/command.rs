//! Commands and paths as a person writes them. A command that is one text is split into words as a shell would split
//! it, and refused where only a shell could do what it says. A relative path becomes an absolute one.

use super::problem::shown;
use crate::actions::proof::anchored;
use crate::actions::{BuildError, PathKey};
use std::path::{Path, PathBuf};
use toml::Value;

/// The words of a command that is one text.
///
/// # Errors
/// What is wrong with it, and how it is written.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let words = shlex::split(text)
        .ok_or_else(|| format!("\"{}\" has a quote or a backslash without its counterpart", shown(text)))?;
    match (words.first(), shell_syntax(text, &words)) {
        (None, _) => Err("it names no command".to_owned()),
        (Some(_), Some(syntax)) => Err(format!(
            "no shell reads it, so \"{}\" has no effect; write {}, or quote it to pass it on as it is",
            shown(syntax),
            for_a_shell(text)
        )),
        (Some(first), None) if is_assignment(first) => Err(format!(
            "no shell reads it, so \"{}\" sets no variable; write env before it, or use `environment` in a file",
            shown(first)
        )),
        (Some(_), None) => Ok(words),
    }
}

/// The path that a text means, seen from a directory.
///
/// # Errors
/// Why it is none.
pub(super) fn absolute(text: &str, directory: &Path) -> Result<PathBuf, String> {
    if text.starts_with(['~', '$']) {
        return Err(format!("\"{}\" is read by no shell, which would expand it; write the whole path", shown(text)));
    }
    if Path::new(text).is_absolute() {
        return Ok(PathBuf::from(text));
    }
    // Without its `.` parts: `/job/./save.sh` is what was typed, `/job/save.sh` what is meant.
    Ok(directory.join(text).components().collect())
}

/// Makes the paths among a kind's own keys absolute.
///
/// # Errors
/// The first key whose value cannot be one, and why.
pub(super) fn resolve(own: &mut toml::Table, paths: &[PathKey], directory: &Path) -> Result<(), BuildError> {
    for path in paths {
        if let Some(value) = find(own, path.key()) {
            let resolved = match path {
                PathKey::File(_) => resolve_text(value, directory),
                PathKey::Pattern(_) => resolve_pattern(value, directory),
                PathKey::Command(_) => resolve_command(value, directory),
            };
            resolved.map_err(|message| BuildError { key: path.key().to_owned(), message })?;
        }
    }
    Ok(())
}

/// The value at a path of keys, where there is one.
fn find<'t>(own: &'t mut toml::Table, key: &str) -> Option<&'t mut Value> {
    match key.split_once('.') {
        Some((table, below)) => find(own.get_mut(table)?.as_table_mut()?, below),
        None => own.get_mut(key),
    }
}

// What is no text, or empty, is left for the kind itself to refuse.

fn resolve_text(value: &mut Value, directory: &Path) -> Result<(), String> {
    if let Value::String(text) = value
        && !text.is_empty()
    {
        *text = utf8(absolute(text, directory)?)?;
    }
    Ok(())
}

fn resolve_pattern(value: &mut Value, directory: &Path) -> Result<(), String> {
    if let Value::String(text) = value
        && !text.is_empty()
    {
        absolute(text, directory)?;
        *text = anchored(text, Some(directory));
    }
    Ok(())
}

fn resolve_command(value: &mut Value, directory: &Path) -> Result<(), String> {
    let Value::Array(words) = value else {
        let Value::String(text) = value else { return Ok(()) };
        return Err(format!("a command is a list of words; write {}", as_list(text)));
    };
    if let Some(program @ Value::String(_)) = words.first_mut() {
        let name = program.as_str().unwrap_or_default();
        let has_slash = name.contains('/') || name.starts_with('~');
        // A name without a slash is searched in PATH.
        let file = if has_slash { absolute(name, directory)? } else { PathBuf::from(name) };
        if name.contains(char::is_whitespace) && !file.exists() {
            return Err(format!("there is no program \"{}\"; write {}", shown(name), as_list(name)));
        }
        *program = Value::String(utf8(file)?);
    }
    Ok(())
}

/// A path as text, which is all that a kind's own keys can hold.
pub(super) fn utf8(path: PathBuf) -> Result<String, String> {
    path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()))
}

/// A command that is one text as the list that does the same.
fn as_list(text: &str) -> String {
    let words = match split(text) {
        Ok(words) => words,
        Err(_) => vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()],
    };
    shown(&Value::from(words).to_string())
}

/// A command that is one text as the one that has a shell read it.
fn for_a_shell(text: &str) -> String {
    let quoted = shlex::try_quote(text).unwrap_or_default();
    shown(&format!("sh -c {quoted}"))
}

/// What only a shell would understand in a text: `&&`, `$HOME`. What quotes keep from a shell does not count.
///
/// Double quotes keep less from it. What they hold is left alone where a word is the `-c` of a shell, or of another
/// interpreter that is handed its program so.
fn shell_syntax<'t>(text: &'t str, words: &[String]) -> Option<&'t str> {
    let hands_over_program =
        words.iter().any(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'));
    let mut quote = None;
    let mut begins_word = true;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let is_expanded = match quote {
            None => true,
            Some('"') => !hands_over_program,
            Some(_) => false,
        };
        let long: fn(char) -> bool = match (quote, c) {
            (None | Some('"'), '\\') => {
                characters.next();
                begins_word = false;
                continue;
            }
            (None, ';' | '|' | '<' | '>') => is_operator,
            // Inside a word it is part of a URL, most likely.
            (None, '&') if next.is_none_or(|next| next == '&' || next.is_whitespace()) => is_operator,
            (None, '~') if begins_word => is_of_name,
            (_, '`') if is_expanded => |_| false,
            (_, '$') if is_expanded && next.is_some_and(is_of_name) => is_of_name,
            (None, '\'' | '"') => {
                quote = Some(c);
                begins_word = false;
                continue;
            }
            (open, _) => {
                quote = open.filter(|open| *open != c);
                begins_word = quote.is_none() && c.is_whitespace();
                continue;
            }
        };
        let rest = &text[at + c.len_utf8()..];
        let length = rest.find(|c| !long(c)).unwrap_or(rest.len());
        return text.get(at..at + c.len_utf8() + length);
    }
    None
}

fn is_operator(c: char) -> bool {
    matches!(c, ';' | '|' | '<' | '>' | '&')
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '{' | '}' | '(' | ')')
}

/// Whether a word sets a variable in a shell: `NAME=value`.
fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    fn found(text: &str) -> Option<&str> {
        shell_syntax(text, &shlex::split(text).unwrap())
    }

    #[test]
    fn what_only_a_shell_understands_is_found() {
        for (text, syntax) in [
            ("cd /job && ./save.sh", "&&"),
            ("./save.sh || true", "||"),
            ("./save.sh; sync", ";"),
            ("./save.sh |tee log", "|"),
            ("./save.sh 2>&1", ">&"),
            ("./save.sh >>/var/log/save", ">>"),
            ("./load.sh < list", "<"),
            ("./save.sh &", "&"),
            ("$HOME/save.sh", "$HOME"),
            ("./save.sh \"${DIR}/x\"", "${DIR}"),
            ("./save.sh $(date)", "$(date)"),
            ("./save.sh `date`", "`"),
            ("./save.sh \"`date`\"", "`"),
            ("~/save.sh", "~"),
            ("./save.sh ~ada/ckpt", "~ada"),
        ] {
            assert_eq!(found(text), Some(syntax), "{text}");
        }
    }

    #[test]
    fn what_a_program_understands_is_let_through() {
        for text in [
            "sh -c 'cd /job && ./save.sh > \"$HOME/log\"'",
            "bash -lc \"cd $HOME/job && ./save.sh `date`\"",
            "python3 -c 'import os; os.sync()'",
            "./save.sh --name 'a;b' \"c|d\" e\\&\\& \\$HOME '~'",
            "./save.sh --price 5$ --at file~ a~b $",
            "curl -X POST http://127.0.0.1:8000/save?a=1&b=2",
            "./save.sh 'it'\\''s'",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_said_with_how_it_is_written() {
        let said = |text: &str| split(text).unwrap_err();
        assert_eq!(
            said("cd /job && ./save.sh 'a b'"),
            "no shell reads it, so \"&&\" has no effect; write sh -c \"cd /job && ./save.sh 'a b'\", or quote it to pass it on \
             as it is"
        );
        assert_eq!(
            said("DIR=/x ./save.sh"),
            "no shell reads it, so \"DIR=/x\" sets no variable; write env before it, or use `environment` in a file"
        );
        assert_eq!(said(" "), "it names no command");
        assert_eq!(split("env DIR=/x ./save.sh").unwrap(), ["env", "DIR=/x", "./save.sh"]);
    }

    #[test]
    fn paths_are_seen_from_a_directory_and_commands_by_their_first_word() {
        let paths = [PathKey::File("file"), PathKey::Command("command"), PathKey::Pattern("proof.newer")];
        let resolved = |text: &str| {
            let mut own: toml::Table = toml::from_str(text).unwrap();
            resolve(&mut own, &paths, Path::new("/job/[1]")).map(|()| own.to_string())
        };
        let text = "file = './a'\ncommand = ['bin/save', './b']\n[proof]\nnewer = 'ckpt/*/DONE'\n";
        insta::assert_snapshot!(resolved(text).unwrap(), @r#"
        command = ["/job/[1]/bin/save", "./b"]
        file = "/job/[1]/a"

        [proof]
        newer = "/job/[[]1[]]/ckpt/*/DONE"
        "#);
        for same in ["file = \"/a/./b\"\n", "command = [\"aws\", \"s3\"]\n", "file = 3\n", "file = \"\"\n"] {
            assert_eq!(resolved(same).unwrap(), same);
        }
        for (text, key, why) in [
            ("file = '~/a'", "file", "\"~/a\" is read by no shell, which would expand it; write the whole path"),
            ("proof = { newer = '$CKPT/*' }", "proof.newer", "\"$CKPT/*\" is read by no shell"),
            ("command = './save.sh now'", "command", "write [\"./save.sh\", \"now\"]"),
            ("command = 'cd /a && ./b'", "command", "write [\"sh\", \"-c\", \"cd /a && ./b\"]"),
            (
                "command = ['./save.sh now']",
                "command",
                "there is no program \"./save.sh now\"; write [\"./save.sh\", \"now\"]",
            ),
            ("command = ['~/save.sh']", "command", "write the whole path"),
        ] {
            let BuildError { key: at, message } = resolved(text).unwrap_err();
            assert!(at == key && message.contains(why), "{text}: {at}: {message}");
        }
    }
}
