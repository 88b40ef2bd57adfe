//! A scenario file: the flags of a benchmark under load, written down as TOML. What the command line says itself wins.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::Value;

/// The flag that names the file.
const FLAG: &str = "--scenario";
/// The flag that may be given several times: the file's come first.
const SEVERAL: &str = "set";

/// The command line with the file's flags in it, if it names one.
///
/// # Errors
/// The file cannot be read or is no table of flags. Flags that there are not are refused later, with the others.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let Some(path) = value_of(&texts, FLAG) else { return Ok(arguments) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the scenario file {path}"))?;
    let flags = flags_of(&text, Path::new(path), &texts)?;
    // Behind the program and the name of the benchmark.
    let mut all: Vec<OsString> = arguments.iter().take(2).cloned().collect();
    all.extend(flags.into_iter().map(OsString::from));
    all.extend(arguments.into_iter().skip(2));
    Ok(all)
}

fn value_of<'a>(texts: &[&'a str], flag: &str) -> Option<&'a str> {
    texts.iter().enumerate().find_map(|(place, text)| match text.strip_prefix(flag)? {
        "" => texts.get(place + 1).copied(),
        rest => rest.strip_prefix('='),
    })
}

fn flags_of(text: &str, path: &Path, given: &[&str]) -> Result<Vec<String>> {
    let table: toml::Table = text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    let is_given = |flag: &str| given.iter().any(|text| text.split('=').next() == Some(flag));
    let mut flags = Vec::new();
    for (key, value) in &table {
        let flag = format!("--{key}");
        if key == SEVERAL {
            let Value::Array(all) = value else { bail!("{}: `{key}` is a list of KEY=VALUE", path.display()) };
            for one in all {
                flags.push(format!("{flag}={}", word(one).with_context(|| format!("`{key}`"))?));
            }
        } else if !is_given(&flag) {
            let text = match value {
                Value::Array(all) => all.iter().map(word).collect::<Result<Vec<_>>>()?.join(","),
                one => word(one).with_context(|| format!("{}: `{key}`", path.display()))?,
            };
            flags.push(format!("{flag}={text}"));
        }
    }
    Ok(flags)
}

fn word(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        other => bail!("a number, a text or a list of them is expected, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, line: &str) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, text)?;
        let line = line.replace("FILE", &file.path().display().to_string());
        let all = expand(line.split(' ').map(OsString::from).collect())?;
        Ok(all.into_iter().filter_map(|argument| argument.into_string().ok()).collect())
    }

    #[test]
    fn flags_of_the_file_are_taken_and_those_of_the_command_line_win() {
        let text = "clients = 500\nlifetime-distribution = \"uniform\"\nsessions = [1, 10]\nset = [\"a.b=1\"]\n";
        let all = expanded(text, "bench churn --scenario=FILE --clients 7 --set=a.b=2").unwrap();
        assert_eq!(all[..2], ["bench", "churn"]);
        let flags: Vec<&str> = all[2..].iter().map(String::as_str).filter(|flag| !flag.contains("tmp")).collect();
        assert_eq!(
            flags,
            ["--lifetime-distribution=uniform", "--sessions=1,10", "--set=a.b=1", "--clients", "7", "--set=a.b=2"]
        );
    }

    #[test]
    fn without_a_file_nothing_changes_and_a_broken_one_is_said() {
        assert_eq!(expanded("", "bench storm --clients 7").unwrap(), ["bench", "storm", "--clients", "7"]);
        assert!(expanded("clients = ", "bench storm --scenario FILE").is_err());
        assert!(expanded("[clients]\nnumber = 7", "bench storm --scenario FILE").is_err());
        assert!(expanded("", "bench storm --scenario /nowhere/at/all").is_err());
    }
}
