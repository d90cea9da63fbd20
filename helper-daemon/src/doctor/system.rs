//! The C library, the kernel, `/proc`, user namespaces and the clock.

use super::Finding;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

/// The oldest C library that the distributed binaries run with.
const OLDEST_GLIBC: (u32, u32) = (2, 17);

/// Where the kernel says how many user namespaces a user may have.
const NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
/// Switches with which distributions deny user namespaces to users, and the value that denies.
const DENIALS: [(&str, &str); 2] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ),
];

pub(super) fn check() -> Vec<Finding> {
    let program = match std::env::current_exe() {
        Ok(path) => format!("{}, version {}", path.display(), env!("CARGO_PKG_VERSION")),
        Err(_) => format!("version {}", env!("CARGO_PKG_VERSION")),
    };
    vec![
        Finding::ok("copper", program),
        check_glibc(&glibc_version()),
        check_kernel(),
        check_proc(),
        check_namespaces(),
        check_clock(),
    ]
}

fn glibc_version() -> String {
    // SAFETY: takes nothing and returns a string that lives as long as the process.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_string_lossy().into_owned()
}

fn check_glibc(version: &str) -> Finding {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let numbers = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if numbers < OLDEST_GLIBC {
        let advice = "Copper needs glibc 2.17 or newer: use a newer system or container";
        return Finding::problem("glibc", version, advice);
    }
    Finding::ok("glibc", version)
}

/// Whether sealed memory can be made, which the catalog is.
fn check_kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let sealed = memfd_create(
        "copper-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .and_then(|memory| fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW));
    match sealed {
        Ok(()) => Finding::ok("kernel", format!("Linux {release}, with sealed memory")),
        Err(error) => Finding::problem(
            "kernel",
            format!("Linux {release} makes no sealed memory: {error}"),
            "Copper needs Linux 3.17 or newer, and a sandbox that allows memfd_create",
        ),
    }
}

/// Whether a process's descriptors can be opened by their names in `/proc`: so programs find the
/// catalog.
fn check_proc() -> Finding {
    let opened = memfd_create("copper-doctor", MemfdFlags::CLOEXEC).and_then(|memory| {
        let name = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        let again = rustix::fs::open(
            name,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        Ok(fstat(&memory)?.st_ino == fstat(&again)?.st_ino)
    });
    match opened {
        Ok(true) => Finding::ok("/proc", "readable"),
        failed => Finding::problem(
            "/proc",
            match failed {
                Err(error) => format!("a descriptor cannot be opened through it: {error}"),
                Ok(_) => "it belongs to another process namespace".to_owned(),
            },
            "mount /proc; in a container start it with the /proc of its own process namespace",
        ),
    }
}

fn check_namespaces() -> Finding {
    const CHECK: &str = "user namespaces";
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let denied = DENIALS
        .into_iter()
        .find(|(path, denying)| read(path).is_ok_and(|value| value == *denying));
    let advice = "only containers that users start without setuid programs need them";
    match (read(NAMESPACES), denied) {
        (Err(_), _) => Finding::note(CHECK, "the kernel has none", advice),
        (Ok(most), _) if most == "0" => Finding::note(CHECK, format!("{NAMESPACES} is 0"), advice),
        (_, Some((path, value))) => Finding::note(CHECK, format!("{path} is {value}"), advice),
        (Ok(most), None) => Finding::ok(CHECK, format!("allowed, at most {most}")),
    }
}

/// Copper compares clocks of nodes nowhere, but people who read logs do.
fn check_clock() -> Finding {
    let own = std::env::current_exe()
        .and_then(fs::metadata)
        .and_then(|found| found.modified());
    let behind = own
        .ok()
        .and_then(|own| own.duration_since(SystemTime::now()).ok());
    if let Some(behind) = behind.filter(|behind| *behind > Duration::from_secs(60)) {
        return Finding::note(
            "clock",
            format!("{} s behind the file of this program", behind.as_secs()),
            "have the clock set; Copper does not depend on it, but build tools and logs do",
        );
    }
    if is_synchronised() {
        Finding::ok("clock", "synchronised")
    } else {
        Finding::note(
            "clock",
            "the kernel does not know it to be synchronised",
            "nothing, if it is right: no more than time stamps in logs depends on it",
        )
    }
}

fn is_synchronised() -> bool {
    let mut clock = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all bytes zero are a valid `timex`, which asks for the state and changes nothing.
    unsafe {
        let state = libc::adjtimex(clock.as_mut_ptr());
        state >= 0 && clock.assume_init().status & libc::STA_UNSYNC == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn old_c_libraries_are_refused() {
        assert_eq!(check_glibc("2.16").state, State::Problem);
        assert_eq!(check_glibc("2.17").state, State::Ok);
        assert_eq!(check_glibc("2.36.9000").state, State::Ok);
        assert_eq!(check_glibc("3.0").state, State::Ok);
        assert_eq!(check_glibc("").state, State::Problem);
    }

    #[test]
    fn this_system_can_seal_memory_and_open_it_again() {
        assert_eq!(check_kernel().state, State::Ok);
        assert_eq!(check_proc().state, State::Ok);
    }
}
