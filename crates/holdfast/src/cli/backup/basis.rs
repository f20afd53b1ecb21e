//! What a new point is compared with, and what of the disk is to be read.

use super::attempt::Trail;
use super::image::ImageArgs;
use super::opened::Opened;
use super::{Note, ranges, troubled};
use crate::cli::CliError;
use crate::place::RepositoryPlace;
use holdfast_backup::point::Disk;
use holdfast_backup::repository::{PointName, Repository};
use std::ops::Range;

/// What bitmaps of Holdfast's own are called at first: each belongs to one point, or one attempt, which names it.
const OURS: &str = "holdfast-";

/// What a point is compared with.
pub struct Basis {
    pub parent: Option<(PointName, Disk)>,
    /// How far somebody came before who made no point.
    pub attempt: Option<Resumed>,
    /// What may be other now; nothing if it may be all.
    pub changed: Option<Vec<Range<u64>>>,
    /// It is not known what was written since the last point.
    pub is_all: bool,
    /// Why not, where that was to be known.
    pub why_all: Option<String>,
}

/// What an attempt has that is of use.
pub struct Resumed {
    /// The disk as it is known now.
    pub disk: Disk,
    /// Bytes of the disk that were read to their end.
    pub bytes: u64,
    /// What it had seen to be other than at the last point.
    pub change: [u64; 5],
}

impl Basis {
    /// What is known of the last point, and of an attempt since.
    pub fn of(
        args: &ImageArgs,
        opened: &mut Opened,
        repository: &Repository,
        name: &str,
        trail: Option<&Trail<'_>>,
    ) -> Result<Self, CliError> {
        let mut basis = Self::of_points(args, opened, repository, name)?;
        basis.is_all = basis.changed.is_none();
        let known = trail.and_then(Trail::before).and_then(|attempt| {
            let since = opened.written_since(&attempt.moment)?;
            Some((attempt, since))
        });
        if let Some((attempt, since)) = known {
            let parent = basis.parent.as_ref().map(|(_, disk)| disk);
            let (disk, changed) = attempt.join(parent, basis.changed.as_deref(), &since);
            basis.changed = Some(changed);
            basis.why_all.take_if(|_| basis.parent.is_none()); // there was no point yet
            basis.attempt = Some(Resumed { disk, bytes: attempt.bytes(), change: attempt.change });
        }
        if let Some(remote) = opened.remote_mut() {
            remote.want(basis.changed.as_deref());
        }
        Ok(basis)
    }

    fn of_points(
        args: &ImageArgs,
        opened: &Opened,
        repository: &Repository,
        name: &str,
    ) -> Result<Self, CliError> {
        let size = opened.source().size();
        let of = |parent, changed, why_all| Self { parent, attempt: None, changed, is_all: false, why_all };
        let mut points = Points::of(repository, name, &args.repository.repo)?;
        let parent = points.newest(|_| true);
        let remote = match opened.remote() {
            Some(remote) if !args.bitmap.is_empty() => remote,
            Some(_) | None => {
                let changed = args.changed.as_deref().map(|file| ranges::read(file, size)).transpose()?;
                let why_all = args.begins.as_ref().filter(|_| parent.is_some() && changed.is_none());
                let why_all =
                    why_all.map(|_| "what was written since the last point was not recorded".into());
                return Ok(of(parent, changed, why_all));
            }
        };
        let mut why_all = None;
        for bitmap in &args.bitmap {
            let since = if bitmap.starts_with(OURS) {
                points.newest(|note| note.bitmap.as_ref() == Some(bitmap))
            } else {
                parent.clone()
            };
            let why = match (&since, remote.changed(bitmap)) {
                (_, None) => format!("the bitmap `{bitmap}` is not offered"),
                (None, _) if bitmap.starts_with(OURS) => format!("no point began with the bitmap `{bitmap}`"),
                (None, _) => "there is no earlier point".to_owned(),
                (Some((_, disk)), _) if disk.size != size => "the disk has another size now".to_owned(),
                (Some(_), Some(changed)) => return Ok(of(since, Some(changed.to_vec()), None)),
            };
            why_all.get_or_insert(why);
        }
        Ok(of(parent, None, why_all))
    }
}

/// The points of one name, the newest first: each is read once, and none that nobody asks for. One that cannot be read is passed over.
struct Points<'a> {
    repository: &'a Repository,
    /// Not read yet, the newest last.
    left: Vec<PointName>,
    read: Vec<(PointName, Note, Disk)>,
}

impl<'a> Points<'a> {
    fn of(repository: &'a Repository, name: &str, folder: &RepositoryPlace) -> Result<Self, CliError> {
        let mut left = repository.points().map_err(troubled(folder))?;
        left.retain(|point| point.vm == name);
        Ok(Self { repository, left, read: Vec::new() })
    }

    /// The newest whose note is as wanted, and the disk as it was then.
    fn newest(&mut self, is_meant: impl Fn(&Note) -> bool) -> Option<(PointName, Disk)> {
        let mut at = 0;
        while at < self.read.len() || self.read_next() {
            let (name, note, disk) = &self.read[at];
            if is_meant(note) {
                return Some((name.clone(), disk.clone()));
            }
            at += 1;
        }
        None
    }

    fn read_next(&mut self) -> bool {
        while let Some(name) = self.left.pop() {
            let Ok(point) = self.repository.point(&name) else { continue };
            let note = Note::of(&point);
            if let Some(disk) = point.disks.into_iter().next() {
                self.read.push((name, note, disk));
                return true;
            }
        }
        false
    }
}
