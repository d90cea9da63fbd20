//! Where a user's job keeps its runtime directory, so that shim, helper and command find each
//! other without being told.
#![forbid(unsafe_code)]

/// Overrides the runtime directory.
pub const RUNTIME_VARIABLE: &str = "COPPER_RUNTIME_DIR";
/// Colon-separated prefixes that this process wants covered, beside those the helper names.
pub const PATHS_VARIABLE: &str = "COPPER_PATHS";
/// Overrides the view's directory, for the helper.
pub const VIEW_VARIABLE: &str = "COPPER_VIEW";
/// `on` has the audit library stay under a dynamic loader that makes calls slower for it, as those
/// before glibc 2.35 do.
pub const AUDIT_VARIABLE: &str = "COPPER_AUDIT";
/// `1` switches the shim off.
pub const DISABLE_VARIABLE: &str = "COPPER_DISABLE";

/// Variables that name the job, in the order in which they are believed.
pub const JOB_VARIABLES: [&str; 7] = [
    "COPPER_JOB",
    "PBS_JOBID",
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "FLUX_JOB_ID",
    "LSB_JOBID",
    "COBALT_JOBID",
];

/// Long enough for any runtime directory that [`runtime_directory`] makes up.
pub const RUNTIME_MAX: usize = 96;

const JOB_MAX: usize = 64;

/// Writes the default runtime directory of `uid` and `job` into `out` and returns its length:
/// `/tmp/copper-UID`, or `/tmp/copper-UID-JOB` with all but letters, digits, `.`, `_` and `-` of
/// the job's name replaced, and no more than 64 bytes of it.
pub fn runtime_directory(uid: u32, job: Option<&[u8]>, out: &mut [u8; RUNTIME_MAX]) -> usize {
    const START: &[u8] = b"/tmp/copper-";
    out[..START.len()].copy_from_slice(START);
    let mut length = START.len() + decimal(u64::from(uid), &mut out[START.len()..]);
    if let Some(job) = job.filter(|job| !job.is_empty()) {
        out[length] = b'-';
        length += 1;
        for &byte in job.iter().take(JOB_MAX) {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            out[length] = if plain { byte } else { b'_' };
            length += 1;
        }
    }
    length
}

/// Writes a number in decimal and returns how many digits it took.
pub fn decimal(number: u64, out: &mut [u8]) -> usize {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = number;
    for place in out[..digits].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(uid: u32, job: Option<&[u8]>) -> std::string::String {
        let mut out = [0; RUNTIME_MAX];
        let length = runtime_directory(uid, job, &mut out);
        std::string::String::from_utf8(out[..length].to_vec()).expect("plain text")
    }

    #[test]
    fn directories_name_user_and_job() {
        assert_eq!(directory(0, None), "/tmp/copper-0");
        assert_eq!(directory(1000, Some(b"")), "/tmp/copper-1000");
        assert_eq!(
            directory(1000, Some(b"123.pbs-01")),
            "/tmp/copper-1000-123.pbs-01"
        );
        assert_eq!(
            directory(u32::MAX, Some(b"../a b")),
            "/tmp/copper-4294967295-.._a_b"
        );
        assert!(directory(u32::MAX, Some(&[b'x'; 500])).len() <= RUNTIME_MAX);
    }
}
