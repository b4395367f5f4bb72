//! Where the admin server listens: a unix socket that only the agent's user can open, or a loopback
//! address.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// The kernel takes no longer path for a unix socket, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// Why the admin server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "admin socket `{}` is answered by another process\n  \
         hint: stop it, or set another `agent.data_dir`", .0.display()
    )]
    Answered(PathBuf),
    #[error("admin socket `{}` is in the way and no socket\n  hint: move that file away", .0.display())]
    NoSocket(PathBuf),
    #[error("admin socket `{}`: {source}\n  hint: the agent's user must be able to write there", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error(
        "admin address `{0}` is not a loopback address\n  \
         hint: use `127.0.0.1:{port}` or `[::1]:{port}`", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    #[error(
        "admin address `{0}` is in use by another process\n  \
         hint: stop that one, or choose another port"
    )]
    InUse(SocketAddr),
    #[error("cannot listen on admin address `{address}`: {source}")]
    Address { address: SocketAddr, source: io::Error },
}

/// An open socket. The unix socket's file goes when this is dropped.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// What is accepted, of either sort.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Listener {
    /// A socket of mode 0600. One that a dead agent left is replaced, one that answers is not.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        let about = |source| BindError::Socket { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NoSocket(path.to_owned())),
            Ok(_) => match connect(path) {
                Ok(_) => return Err(BindError::Answered(path.to_owned())),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(about)?;
                }
                Err(error) => return Err(about(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(about(error)),
        }
        let listener = with_short_path(path, |short| UnixListener::bind(short)).map_err(about)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(about)?;
        Ok(Self(Socket::Unix(listener, path.to_owned())))
    }

    /// A loopback address; port 0 is any free one.
    pub async fn loopback(address: SocketAddr) -> Result<Self, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self(Socket::Tcp(listener))),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(BindError::InUse(address)),
            Err(source) => Err(BindError::Address { address, source }),
        }
    }

    /// Where it listens, if it is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Socket::Unix(..) => None,
            Socket::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Whether only the agent's user can connect.
    pub(super) fn is_private(&self) -> bool {
        matches!(self.0, Socket::Unix(..))
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.0 {
            Socket::Unix(listener, _) => Box::new(listener.accept().await?.0),
            Socket::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Connects to a unix socket, at a path of whatever length.
pub(super) fn connect(path: &Path) -> io::Result<StdUnixStream> {
    with_short_path(path, |short| StdUnixStream::connect(short))
}

/// A path that is too long is taken by way of its directory, opened.
fn with_short_path<T>(path: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return action(path) };
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return action(path);
    }
    let directory = File::open(parent)?;
    action(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Temp;
    use super::*;

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
        let temp = Temp::new("stale");
        let path = temp.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::unix(&path).unwrap();
        assert!(matches!(Listener::unix(&path).unwrap_err(), BindError::Answered(_)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_touched() {
        let temp = Temp::new("in-the-way");
        let path = temp.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let error = Listener::unix(&path).unwrap_err().to_string();
        assert!(error.contains("is in the way") && error.contains("hint: "), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_path_longer_than_a_socket_may_have_works() {
        let temp = Temp::new("long");
        let directory = temp.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("admin.sock");
        let listener = Listener::unix(&path).unwrap();
        connect(&path).unwrap();
        listener.accept().await.map(drop).unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = Listener::unix(Path::new("/nonexistent/admin.sock")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/admin.sock"), "{error}");
    }

    #[tokio::test]
    async fn only_loopback_addresses_are_listened_on() {
        let error = Listener::loopback("0.0.0.0:9100".parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("`0.0.0.0:9100` is not") && error.contains("127.0.0.1:9100"), "{error}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_next_step() {
        let first = Listener::loopback("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.address().unwrap();
        let error = Listener::loopback(address).await.unwrap_err();
        assert!(matches!(error, BindError::InUse(taken) if taken == address), "{error}");
        assert!(error.to_string().contains("choose another port"), "{error}");
    }
}
