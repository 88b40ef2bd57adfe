//! Documents that are made from code, so that they cannot be wrong.

use anyhow::{Result, bail};

use crate::shell::{self, line, step};

/// Packages with a program among their examples that writes documents, or compares them if given `--check`. The last
/// one also looks for dead links, so the documents of the others must be there by then.
const GENERATORS: [(&str, &str); 2] = [("jumpgate-common", "xdp-counters"), ("jumpgate-protocol", "render")];

/// Writes all of them; with `check`, compares instead.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut stale = 0;
    for (package, example) in GENERATORS {
        let mut command = shell::cargo();
        command.args(["run", "--quiet", "--locked", "--package", package, "--example", example]);
        if check {
            command.args(["--", "--check"]);
        }
        step(&line(&command));
        stale += u32::from(!shell::status(&mut command)?.success());
    }
    match (stale, check) {
        (0, _) => Ok(()),
        (_, true) => bail!("documents are not what the code gives: run `cargo xtask docs` and commit"),
        (_, false) => bail!("not every document could be written"),
    }
}
