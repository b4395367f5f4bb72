//! `wasi:filesystem` with two rules of our own: a grant may name a single file, and neither pipes
//! nor devices are opened.
//!
//! WASI hands out directories only. A granted file is therefore reached through a *narrowed*
//! directory: one in which nothing else can be opened, looked at or listed.

use std::collections::HashMap;

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::store::Guest;

/// Names [`FilesView`] for the linker.
pub(super) struct Files;

impl HasData for Files {
    type Data<'a> = FilesView<'a>;
}

/// The directories of one store that show some files only.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    /// By the directory's name for the guest: what may be opened in it.
    pub(super) by_path: HashMap<String, Vec<String>>,
    /// The same by descriptor, once the guest has asked for its directories.
    by_descriptor: HashMap<u32, Vec<String>>,
}

/// What file functions may touch.
pub(super) struct FilesView<'a> {
    inner: WasiFilesystemCtxView<'a>,
    narrowed: &'a mut Narrowed,
}

impl Guest {
    pub(super) fn files(&mut self) -> FilesView<'_> {
        let (inner, narrowed) = self.filesystem_parts();
        FilesView { inner, narrowed }
    }
}

type Fd = Resource<Descriptor>;

impl FilesView<'_> {
    /// Whether `path` may be used in this directory: for reading, that is.
    fn may_see(&self, fd: &Fd, path: &str) -> FsResult<()> {
        match self.narrowed.by_descriptor.get(&fd.rep()) {
            Some(names) if !names.iter().any(|name| name == path) => Err(ErrorCode::NoEntry.into()),
            _ => Ok(()),
        }
    }

    /// Whether entries of this directory may be made, moved, removed or listed.
    fn is_whole(&self, fd: &Fd) -> FsResult<()> {
        if self.narrowed.by_descriptor.contains_key(&fd.rep()) {
            return Err(ErrorCode::NotPermitted.into());
        }
        Ok(())
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let directories = preopens::Host::get_directories(&mut self.inner)?;
        for (fd, path) in &directories {
            if let Some(names) = self.narrowed.by_path.get(path) {
                self.narrowed.by_descriptor.insert(fd.rep(), names.clone());
            }
        }
        Ok(directories)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.filesystem_error_code(error)
    }
}

impl HostDescriptor for FilesView<'_> {
    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        self.may_see(&fd, &path)?;
        // Opening a pipe would wait for its other end, and devices act when opened.
        let borrowed = Resource::new_borrow(fd.rep());
        if let Ok(stat) = self.inner.stat_at(borrowed, path_flags, path.clone()).await
            && !matches!(
                stat.type_,
                DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink
            )
        {
            return Err(ErrorCode::NotPermitted.into());
        }
        self.inner.open_at(fd, path_flags, path, open_flags, flags).await
    }

    async fn stat_at(&mut self, fd: Fd, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        self.may_see(&fd, &path)?;
        self.inner.stat_at(fd, flags, path).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        self.may_see(&fd, &path)?;
        self.inner.metadata_hash_at(fd, flags, path).await
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        self.may_see(&fd, &path)?;
        self.inner.readlink_at(fd, path).await
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.inner.set_times_at(fd, flags, path, accessed, modified).await
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        self.is_whole(&fd)?;
        self.inner.read_directory(fd).await
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.inner.create_directory_at(fd, path).await
    }

    async fn link_at(&mut self, fd: Fd, flags: PathFlags, old: String, to: Fd, new: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.is_whole(&to)?;
        self.inner.link_at(fd, flags, old, to, new).await
    }

    async fn rename_at(&mut self, fd: Fd, old: String, to: Fd, new: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.is_whole(&to)?;
        self.inner.rename_at(fd, old, to, new).await
    }

    async fn symlink_at(&mut self, fd: Fd, old: String, new: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.inner.symlink_at(fd, old, new).await
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.inner.unlink_file_at(fd, path).await
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        self.is_whole(&fd)?;
        self.inner.remove_directory_at(fd, path).await
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.narrowed.by_descriptor.remove(&fd.rep());
        HostDescriptor::drop(&mut self.inner, fd)
    }

    // What follows acts on something that is open already, and so has passed the rules.

    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        self.inner.read_via_stream(fd, offset)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        self.inner.write_via_stream(fd, offset)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        self.inner.append_via_stream(fd)
    }

    async fn advise(&mut self, fd: Fd, offset: Filesize, length: Filesize, advice: Advice) -> FsResult<()> {
        self.inner.advise(fd, offset, length, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync_data(fd).await
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync(fd).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        self.inner.get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        self.inner.get_type(fd).await
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        self.inner.set_size(fd, size).await
    }

    async fn set_times(&mut self, fd: Fd, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()> {
        self.inner.set_times(fd, accessed, modified).await
    }

    async fn read(&mut self, fd: Fd, length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        // The host holds what is read until the guest has it: never much at once.
        self.inner.read(fd, length.min(1 << 20), offset).await
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        self.inner.write(fd, bytes, offset).await
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        self.inner.stat(fd).await
    }

    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        self.inner.is_same_object(a, b).await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        self.inner.metadata_hash(fd).await
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}
