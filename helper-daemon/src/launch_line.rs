//! The variables that a rank needs, in the words of the launchers that start ranks; and launch lines
//! of the one launcher, Open MPI's, that does not give ranks on other nodes its own environment.
#![forbid(unsafe_code)]

use crate::cli::Format;
use anyhow::{Result, ensure};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names that Open MPI's launcher goes by; others' go by some of them, too.
const OPEN_MPI_NAMES: [&str; 4] = ["mpirun", "mpiexec", "orterun", "prterun"];
/// What it calls itself: under the first of its names, and under the others of versions 4 and 5.
const OPEN_MPI_WORDS: [&str; 3] = ["(Open MPI)", "(OpenRTE)", "(PRRTE)"];

/// What `copper env --format` prints, with a line's end.
pub(crate) fn text(format: Format, variables: &[(&str, OsString)]) -> Result<Vec<u8>> {
    if format == Format::Sh {
        return Ok(exports(variables));
    }
    for (name, value) in variables {
        check(format, name, value)?;
    }
    let pair =
        |(name, value): &(&str, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let each = |before: &[u8]| -> Vec<Vec<u8>> {
        let words = variables.iter().map(pair);
        words.map(|pair| [before, &pair].concat()).collect()
    };
    let words = match format {
        Format::Sh => Vec::new(),
        Format::Pals => each(b"--genv="),
        Format::Openmpi => each(b"-x "),
        Format::Flux => each(b"--env="),
        Format::Hydra => variables
            .iter()
            .map(|(name, value)| [b"-genv ", name.as_bytes(), b" ", value.as_bytes()].concat())
            .collect(),
        Format::Srun => vec![[&b"--export=ALL,"[..], &each(b"").join(&b","[..])].concat()],
    };
    Ok([words.join(&b' '), b"\n".to_vec()].concat())
}

fn exports(variables: &[(&str, OsString)]) -> Vec<u8> {
    let line = |(name, value): &(&str, OsString)| {
        let value = quote(value);
        [b"export ", name.as_bytes(), b"=", value.as_bytes(), b"\n"].concat()
    };
    variables.iter().flat_map(line).collect()
}

/// The words are split at blanks by the shell, and some launchers read more into them.
fn check(format: Format, name: &str, value: &OsStr) -> Result<()> {
    let special: &[u8] = match format {
        Format::Srun => b",",
        Format::Flux => b"${}",
        Format::Sh | Format::Pals | Format::Hydra | Format::Openmpi => b"",
    };
    let is_odd = |byte: &u8| {
        byte.is_ascii_whitespace() || b"*?['\"\\".contains(byte) || special.contains(byte)
    };
    let odd = value.as_bytes().iter().copied().find(|byte| is_odd(byte));
    ensure!(
        odd.is_none(),
        "{name} holds '{}', which would not survive the launch line; export it with eval \"$(copper \
         env)\", and let the launcher pass the environment on",
        char::from(odd.unwrap_or(b' '))
    );
    Ok(())
}

/// A value as a shell's word.
fn quote(value: &OsStr) -> OsString {
    let mut quoted = vec![b'\''];
    for &byte in value.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// The command line with what makes a launcher give its ranks these variables. Other launchers
/// than Open MPI's do so by themselves.
pub(crate) fn for_ranks(line: &[OsString], names: &[&str]) -> Vec<OsString> {
    let mut words = line.to_vec();
    let program = Path::new(&line[0]);
    let is_named = OPEN_MPI_NAMES
        .iter()
        .any(|name| program.file_stem() == Some(OsStr::new(name)));
    if is_named && is_open_mpi(&line[0]) {
        let options = names
            .iter()
            .flat_map(|name| [OsString::from("-x"), name.into()]);
        words.splice(1..1, options);
    }
    words
}

fn is_open_mpi(program: &OsStr) -> bool {
    let mut version = Command::new(program);
    version
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let said = version.output().map(|output| output.stdout);
    said.is_ok_and(|said| is_of_open_mpi(&String::from_utf8_lossy(&said)))
}

/// Whether one of its launchers says this of its version.
fn is_of_open_mpi(said: &str) -> bool {
    OPEN_MPI_WORDS.iter().any(|word| said.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", "/opt/libcopper.so:/opt/other.so".into()),
            ("COPPER_PATHS", "/lus/env:/data".into()),
        ]
    }

    fn line(format: Format) -> String {
        let line = text(format, &variables()).expect("plain values");
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn every_launcher_gets_its_words() {
        let preload = "/opt/libcopper.so:/opt/other.so";
        let paths = "/lus/env:/data";
        assert_eq!(
            line(Format::Sh),
            format!("export LD_PRELOAD='{preload}'\nexport COPPER_PATHS='{paths}'\n")
        );
        assert_eq!(
            line(Format::Pals),
            format!("--genv=LD_PRELOAD={preload} --genv=COPPER_PATHS={paths}\n")
        );
        assert_eq!(
            line(Format::Hydra),
            format!("-genv LD_PRELOAD {preload} -genv COPPER_PATHS {paths}\n")
        );
        assert_eq!(
            line(Format::Openmpi),
            format!("-x LD_PRELOAD={preload} -x COPPER_PATHS={paths}\n")
        );
        assert_eq!(
            line(Format::Srun),
            format!("--export=ALL,LD_PRELOAD={preload},COPPER_PATHS={paths}\n")
        );
        assert_eq!(
            line(Format::Flux),
            format!("--env=LD_PRELOAD={preload} --env=COPPER_PATHS={paths}\n")
        );
    }

    #[test]
    fn values_that_a_launch_line_would_break_are_refused() {
        let value = |text: &str| vec![("COPPER_PATHS", OsString::from(text))];
        let refused = |format, value: &str| {
            let error =
                text(format, &[("COPPER_PATHS", OsString::from(value))]).expect_err("refused");
            assert!(error.to_string().contains("COPPER_PATHS"), "{error}");
        };
        refused(Format::Hydra, "/with a blank");
        refused(Format::Srun, "/a,b");
        refused(Format::Flux, "/a$b");
        assert!(text(Format::Hydra, &value("/a,b")).is_ok());
        assert!(text(Format::Sh, &value("/with a blank")).is_ok());
    }

    #[test]
    fn quoted_values_survive_a_shell() {
        assert_eq!(quote(OsStr::new("a'b c")), r"'a'\''b c'");
    }

    #[test]
    fn open_mpi_is_known_by_all_that_it_calls_itself() {
        for says in [
            "mpirun (Open MPI) 4.1.4\n",
            "mpiexec (OpenRTE) 4.1.4\n",
            "mpirun.openmpi (OpenRTE) 4.1.4\n",
            "prterun (PRRTE) 3.0.2\n",
        ] {
            assert!(is_of_open_mpi(says), "{says}");
        }
        for says in [
            "HYDRA build details:\n    Version: 4.0.2\n",
            "PALS 1.2\n",
            "",
        ] {
            assert!(!is_of_open_mpi(says), "{says}");
        }
    }

    #[test]
    fn other_programs_lines_stay_as_they_are() {
        let line = ["python3", "-c", "mpirun"].map(OsString::from);
        assert_eq!(for_ranks(&line, &["LD_PRELOAD"]), line);
    }
}
