//! Bodies of entries and directories, kept as they travelled for those who ask after us.
#![forbid(unsafe_code)]

use copper_core::tree::Object;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A kept body: a long one as a file, since peers fetch it in chunks.
#[derive(Clone)]
pub(super) enum Body {
    Short(Arc<[u8]>),
    Long(Arc<File>),
}

/// The kept bodies.
#[derive(Default)]
pub(super) struct Bodies {
    kept: HashMap<Object, Body>,
}

impl Bodies {
    /// Keeps a body; one of more than `limit` bytes as a file.
    pub(super) fn keep(&mut self, object: &Object, bytes: &[u8], limit: u32) -> io::Result<()> {
        let body = if bytes.len() <= limit as usize {
            Body::Short(bytes.into())
        } else {
            let file = File::from(memfd_create(c"copper-body", MemfdFlags::CLOEXEC)?);
            file.write_all_at(bytes, 0)?;
            Body::Long(Arc::new(file))
        };
        self.kept.insert(object.clone(), body);
        Ok(())
    }

    /// Keeps a body that came as a file.
    pub(super) fn keep_file(&mut self, object: &Object, file: Arc<File>) {
        self.kept.insert(object.clone(), Body::Long(file));
    }

    pub(super) fn get(&self, object: &Object) -> Option<&Body> {
        self.kept.get(object)
    }

    pub(super) fn remove(&mut self, object: &Object) {
        self.kept.remove(object);
    }
}

/// Reads the first `length` bytes of a file.
pub(super) fn read_whole(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
