//! The namespaces of an engine, by name.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{
    self, Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, futures::Notified, watch,
};

use super::{check_readable, image::Image};
use crate::backend::{BackendError, Lineage, NamespaceName, Revision};

/// The right to have a commit on its way, until dropped.
pub(super) enum Turn {
    /// Others may follow it.
    #[expect(dead_code, reason = "it is held, not read")]
    Beside(OwnedRwLockReadGuard<()>),
    /// It is the only one.
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Turn {
    /// The same, of a commit that others may follow.
    pub fn shared(self) -> Self {
        match self {
            Self::Alone(turn) => Self::Beside(turn.downgrade()),
            beside => beside,
        }
    }
}

/// A namespace, also a deleted one.
pub(super) struct Cell {
    pub image: RwLock<Image>,
    /// Lineage and last revision, for those who wait.
    pub head: watch::Sender<(Option<Lineage>, Revision)>,
    /// The right to have commits on their way to the journal; not taken where there is none.
    turn: Arc<sync::RwLock<()>>,
    /// Held from the stamp of a commit until it is handed in: commits are handed in in the order of their stamps.
    pub order: Mutex<()>,
    /// Told when a commit was applied or refused.
    moved_on: Notify,
    /// Whether its first commit has been made: before that nobody sees it.
    born: AtomicBool,
}

/// All namespaces.
pub(super) struct Cells {
    by_name: RwLock<BTreeMap<NamespaceName, Arc<Cell>>>,
    /// Counts the namespaces that came into being: what wakes those who wait for one.
    births: watch::Sender<u64>,
}

impl Cell {
    /// A cell that nobody sees yet.
    pub fn new(image: Image) -> Self {
        Self {
            head: watch::Sender::new((image.lineage, image.revision())),
            image: RwLock::new(image),
            turn: Arc::default(),
            order: Mutex::default(),
            moved_on: Notify::new(),
            born: AtomicBool::new(false),
        }
    }

    /// Tells those who wait.
    pub fn announce(&self, image: &Image) {
        let head = (image.lineage, image.revision());
        self.head.send_if_modified(|old| std::mem::replace(old, head) != head);
    }

    /// Waits for the right to have the only commit on its way: none is then.
    pub async fn alone(&self) -> Turn {
        Turn::Alone(self.turn.clone().write_owned().await)
    }

    /// The right to follow the commits on their way, if nobody waits until there is none.
    pub fn beside(&self) -> Option<Turn> {
        self.turn.clone().try_read_owned().ok().map(Turn::Beside)
    }

    /// Tells those who wait that a commit was applied or refused.
    pub fn tell_moved_on(&self) {
        self.moved_on.notify_waiters();
    }

    /// Resolves with the next commit that is applied or refused from now on.
    pub fn moved_on(&self) -> Notified<'_> {
        self.moved_on.notified()
    }

    /// Waits until the time, where it stands still, has come to a moment.
    pub async fn reaches(&self, time_ms: i64) {
        loop {
            let moved_on = self.moved_on();
            if self.image.read().held_ms().is_none_or(|held_ms| held_ms >= time_ms) {
                return;
            }
            moved_on.await;
        }
    }

    /// Takes what it holds out of it.
    pub fn take_image(&self) -> Image {
        let mut image = self.image.write();
        // At a position of its own, so that a snapshot of it that is under way begins anew.
        let nothing = image.deleted();
        std::mem::replace(&mut *image, nothing)
    }

    /// Versions are walked through without the lock, which may take long; that nothing of them was forgotten
    /// meanwhile has to be found out afterwards.
    pub fn still_readable(&self, at: Option<Revision>) -> Result<(), BackendError> {
        match at {
            Some(_) => check_readable(&self.image.read(), at),
            None => Ok(()),
        }
    }

    fn is_born(&self) -> bool {
        self.born.load(Ordering::Acquire)
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self { by_name: RwLock::default(), births: watch::Sender::new(0) }
    }
}

impl FromIterator<(NamespaceName, Image)> for Cells {
    fn from_iter<T: IntoIterator<Item = (NamespaceName, Image)>>(images: T) -> Self {
        let born = |(name, image)| {
            let cell = Cell::new(image);
            cell.born.store(true, Ordering::Release);
            (name, Arc::new(cell))
        };
        let by_name = images.into_iter().map(born).collect();
        Self { by_name: RwLock::new(by_name), births: watch::Sender::new(0) }
    }
}

impl Cells {
    /// A namespace that was made at some time.
    pub fn get(&self, namespace: &NamespaceName) -> Option<Arc<Cell>> {
        self.by_name.read().get(namespace).filter(|cell| cell.is_born()).cloned()
    }

    /// The cell for a namespace, made with `image` if there is none.
    pub fn get_or_make(
        &self,
        namespace: &NamespaceName,
        image: impl FnOnce() -> Image,
    ) -> Arc<Cell> {
        if let Some(cell) = self.by_name.read().get(namespace) {
            return cell.clone();
        }
        let mut cells = self.by_name.write();
        cells.entry(namespace.clone()).or_insert_with(|| Arc::new(Cell::new(image()))).clone()
    }

    /// Shows a cell whose first commit has been made.
    pub fn show(&self, cell: &Cell) {
        if !cell.is_born() {
            cell.born.store(true, Ordering::Release);
            self.births.send_modify(|births| *births += 1);
        }
    }

    /// Takes a cell out again whose first commit was refused, unless it is shown or somebody else has it.
    pub fn discard(&self, namespace: &NamespaceName, cell: Arc<Cell>) {
        let mut cells = self.by_name.write();
        // One in the map, one here.
        if !cell.is_born() && Arc::strong_count(&cell) == 2 {
            cells.remove(namespace);
        }
    }

    /// Takes a namespace out.
    pub fn remove(&self, namespace: &NamespaceName) {
        self.by_name.write().remove(namespace);
    }

    /// Changes whenever a namespace comes into being.
    pub fn births(&self) -> watch::Receiver<u64> {
        self.births.subscribe()
    }

    /// What `pick` makes of up to `limit` namespaces in a range of names while `is_in` holds, in order.
    pub fn collect<T>(
        &self,
        range: (Bound<&str>, Bound<&str>),
        is_in: impl Fn(&NamespaceName) -> bool,
        pick: impl Fn(&NamespaceName, &Cell) -> Option<T>,
        limit: usize,
    ) -> Vec<T> {
        let cells = self.by_name.read();
        let shown = cells.range::<str, _>(range).filter(|(_, cell)| cell.is_born());
        let picked = shown.take_while(|(name, _)| is_in(name)).filter_map(|(n, c)| pick(n, c));
        picked.take(limit).collect()
    }

    /// The first namespace after a name.
    pub fn next(&self, after: Option<&NamespaceName>) -> Option<(NamespaceName, Arc<Cell>)> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let cells = self.by_name.read();
        let mut shown =
            cells.range::<str, _>((start, Bound::Unbounded)).filter(|(_, cell)| cell.is_born());
        shown.next().map(|(name, cell)| (name.clone(), cell.clone()))
    }
}
