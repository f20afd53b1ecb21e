//! Which disk of which restore point is meant.

use super::{PointArgs, RepositoryArgs, shown, troubled};
use crate::cli::CliError;
use clap::Args;
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::repository::Repository;

/// One disk of a restore point.
#[derive(Args)]
pub struct DiskArgs {
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// Which disk; the first, if none is named.
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
}

/// It, in its repository, which is open.
pub struct Meant {
    pub repository: Repository,
    /// The point, as people write it.
    pub point: String,
    pub disk: Disk,
}

impl DiskArgs {
    /// Opens the repository, and finds it there.
    pub fn open(&self) -> Result<Meant, CliError> {
        let (repository, folder) = (self.repository.open()?, &self.repository.repo);
        let name = self.point.find(&repository, folder)?;
        let point = repository.point(&name).map_err(troubled(folder))?;
        let disk = named(&point, self.disk.as_deref(), &shown(&name))?.clone();
        Ok(Meant { repository, point: shown(&name), disk })
    }
}

/// The disk of this name, or the first.
pub fn named<'a>(point: &'a Point, named: Option<&str>, shown: &str) -> Result<&'a Disk, CliError> {
    let found = point.disks.iter().find(|disk| named.is_none_or(|named| named == disk.name));
    let names: Vec<&str> = point.disks.iter().map(|disk| &disk.name[..]).collect();
    found.ok_or_else(|| CliError::Said {
        error: format!("restore point {shown} has no such disk"),
        cause: format!("its disks are: {}", names.join(", ")),
        hint: "name one of them with `--disk`".into(),
    })
}
