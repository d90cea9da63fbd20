//! Read bandwidth, into memory that is in use already and into fresh pages of tmpfs.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use libfabric_sys::{
    Access, EndpointConfig, Event, Mapping, Memory, Peer, PostError, Region, RemoteRegion,
};

use crate::common::{Client, PATIENCE, config, tmpfs_file};
use crate::{Figure, OtherProcess, server};

/// Bytes of reads under way at once, at most.
const IN_FLIGHT: usize = 8 << 20;
const WINDOW: usize = 8;

/// How bytes get into a fresh file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Map it; pages appear as the provider touches them.
    Fault,
    /// Map it with huge pages advised.
    FaultHuge,
    /// Map it with all pages made by `MAP_POPULATE`.
    Populate,
    /// Map it, and make each chunk's pages just before its read (`MADV_POPULATE_WRITE`).
    PopulateChunk,
    /// `fallocate` it, then map it.
    Allocate,
    /// Read into a ring of buffers, and write each to the file.
    Bounce,
}

impl Way {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Fault, "mapping, faults"),
        (Self::FaultHuge, "mapping, huge pages advised"),
        (Self::Populate, "mapping, MAP_POPULATE"),
        (
            Self::PopulateChunk,
            "mapping, MADV_POPULATE_WRITE per chunk",
        ),
        (Self::Allocate, "mapping, fallocate first"),
        (Self::Bounce, "ring of buffers and pwrite"),
    ];
}

/// Wall and processor time of this process.
struct Clock {
    begin: Instant,
    cpu: f64,
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

impl Clock {
    fn start() -> Self {
        Self {
            begin: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    /// GB/s and processor seconds per GB.
    fn stop(self, bytes: usize) -> (f64, f64) {
        let gigabytes = bytes as f64 * 1e-9;
        (
            gigabytes / self.begin.elapsed().as_secs_f64(),
            (cpu_seconds() - self.cpu) / gigabytes,
        )
    }
}

fn figure(name: String, repeats: usize, mut once: impl FnMut() -> (f64, f64)) -> Figure {
    let (rates, mut cpu): (Vec<f64>, Vec<f64>) = (0..repeats).map(|_| once()).unzip();
    cpu.sort_by(f64::total_cmp);
    let mut figure = Figure::new(name, rates, "GB/s");
    figure.cpu_seconds_per_gigabyte = Some(cpu[cpu.len() / 2]);
    figure
}

/// What memory alone allows: copies into memory in use, and into fresh tmpfs both ways.
pub(crate) fn measure_memory(repeats: usize, bytes: usize) -> Vec<Figure> {
    const BLOCK: usize = 1 << 20;
    let block = vec![7; BLOCK];
    let warm = Memory::anonymous(bytes).expect("memory");
    let fill = |memory: &Memory| {
        for at in (0..bytes).step_by(BLOCK) {
            memory.copy_in(at, &block);
        }
    };
    fill(&warm);
    let figures = vec![
        figure("memcpy into memory in use".to_owned(), repeats, || {
            let clock = Clock::start();
            fill(&warm);
            clock.stop(bytes)
        }),
        figure(
            "memcpy into a fresh mapping of tmpfs".to_owned(),
            repeats,
            || {
                let clock = Clock::start();
                let file = tmpfs_file(bytes);
                fill(&Memory::map(&file, 0, bytes, Mapping::ReadWrite).expect("a mapping"));
                clock.stop(bytes)
            },
        ),
        figure(
            "pwrite to a fresh file on tmpfs".to_owned(),
            repeats,
            || {
                let clock = Clock::start();
                let file = tmpfs_file(bytes);
                for at in (0..bytes).step_by(BLOCK) {
                    file.write_all_at(&block, at as u64).expect("room");
                }
                clock.stop(bytes)
            },
        ),
    ];
    figures.iter().for_each(Figure::print);
    figures
}

/// Reads of one exposed region.
struct Reads<'a> {
    client: &'a mut Client,
    peer: Peer,
    source: RemoteRegion,
    chunk: usize,
}

impl Reads<'_> {
    fn window(&self) -> usize {
        WINDOW.min((IN_FLIGHT / self.chunk).max(2))
    }

    /// Reads the whole region. `target` says where chunk number `n` goes, and `arrived` is told.
    fn run(
        &mut self,
        mut target: impl FnMut(usize) -> (Region, usize),
        mut arrived: impl FnMut(usize),
    ) {
        let chunks = self.source.length as usize / self.chunk;
        let window = self.window();
        let deadline = Instant::now() + PATIENCE;
        let (mut posted, mut done) = (0, 0);
        while done < chunks {
            while posted < chunks && posted - done < window {
                let (region, offset) = target(posted);
                let start = (posted * self.chunk) as u64;
                let endpoint = &mut self.client.endpoint;
                let token = posted as u64;
                match endpoint.read(
                    self.peer,
                    &self.source,
                    start,
                    &region,
                    offset,
                    self.chunk,
                    token,
                    deadline,
                ) {
                    Ok(()) => posted += 1,
                    Err(PostError::Again) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            match self.client.endpoint.next_event().expect("an event") {
                Some(Event::Read { token }) => {
                    arrived(token as usize);
                    done += 1;
                }
                Some(Event::Failed { error, .. }) => panic!("{error}"),
                Some(_) => {}
                None => self
                    .client
                    .endpoint
                    .wait(Duration::from_millis(10))
                    .expect("a wait"),
            }
            assert!(Instant::now() < deadline, "reads do not end");
        }
    }

    /// Reads the whole region into one of ours.
    fn fill_region(&mut self, region: &Region, prepare: bool) {
        let chunk = self.chunk;
        self.run(
            |n| {
                if prepare {
                    let _ = region.memory().populate_for_writing(n * chunk, chunk);
                }
                (region.clone(), n * chunk)
            },
            |_| {},
        );
    }

    /// Reads the whole region into a fresh file.
    fn fill_file(&mut self, way: Way) -> File {
        let bytes = self.source.length as usize;
        let file = tmpfs_file(bytes);
        if way == Way::Bounce {
            self.bounce(&file);
            return file;
        }
        if way == Way::Allocate {
            // SAFETY: a system call on a descriptor of ours.
            let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as i64) };
            assert_eq!(result, 0, "fallocate");
        }
        let mapping = if way == Way::Populate {
            Mapping::Populated
        } else {
            Mapping::ReadWrite
        };
        let memory = Memory::map(&file, 0, bytes, mapping).expect("a mapping");
        if way == Way::FaultHuge {
            let _ = memory.advise_huge_pages();
        }
        let region = self
            .client
            .endpoint
            .register(memory, Access::Local)
            .expect("a registration");
        self.fill_region(&region, way == Way::PopulateChunk);
        file
    }

    fn bounce(&mut self, file: &File) {
        let chunk = self.chunk;
        let window = self.window();
        let memory = Memory::anonymous(window * chunk).expect("memory");
        let ring = self
            .client
            .endpoint
            .register(memory, Access::Local)
            .expect("a registration");
        // Chunks may arrive in any order, so each takes the buffer that became free last.
        let idle = std::cell::RefCell::new((0..window).collect::<Vec<_>>());
        let buffers = std::cell::RefCell::new(std::collections::HashMap::new());
        self.run(
            |n| {
                let buffer = *buffers.borrow_mut().entry(n).or_insert_with(|| {
                    idle.borrow_mut()
                        .pop()
                        .expect("as many buffers as reads under way")
                });
                (ring.clone(), buffer * chunk)
            },
            |n| {
                let buffer = buffers.borrow_mut().remove(&n).expect("a chunk under way");
                let position = (n * chunk) as u64;
                ring.memory()
                    .write_to(buffer * chunk, chunk, file, position)
                    .expect("room");
                idle.borrow_mut().push(buffer);
            },
        );
    }
}

/// Bandwidth of reads of `bytes` from the other process.
pub(crate) fn measure(
    provider: &str,
    repeats: usize,
    bytes: usize,
    other: &OtherProcess,
    note: &mut impl FnMut(Figure),
) {
    let server = server(provider, 4 << 10, false, other);
    let mut client = Client::with(&EndpointConfig {
        reads: WINDOW,
        ..config(provider)
    });
    let peer = client.greet(&server);
    let source = client.expose(peer, bytes);
    let warm = Memory::anonymous(bytes).expect("memory");
    let warm = client
        .endpoint
        .register(warm, Access::Local)
        .expect("a registration");
    for chunk in [256 << 10, 1 << 20, 4 << 20] {
        let mut reads = Reads {
            client: &mut client,
            peer,
            source,
            chunk,
        };
        let size = format!("{} KiB", chunk >> 10);
        reads.fill_region(&warm, false);
        note(figure(
            format!("reads of {size} into memory in use"),
            repeats,
            || {
                let clock = Clock::start();
                reads.fill_region(&warm, false);
                clock.stop(bytes)
            },
        ));
        for (way, name) in Way::ALL {
            note(figure(
                format!("reads of {size} into tmpfs: {name}"),
                repeats,
                || {
                    let clock = Clock::start();
                    let file = reads.fill_file(way);
                    let result = clock.stop(bytes);
                    drop(file);
                    result
                },
            ));
        }
    }
}
