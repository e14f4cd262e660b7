//! What outlives a restart, and when it is not trusted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{
    About, Asked, Keeping, KeptFault, LoginError, Logins, MintedTokens, Mode, PairingEntry, Pairings,
    Principal, Provider, Wanted,
};
use super::{demo, provider, within};
use crate::config::Secret;
use crate::demo::provider::DemoProvider;

const GRACE: Duration = Duration::from_secs(900);
const SECRET: &str = "b7f3e2a1c4d59687aa01bc23de45f678";

struct Gateway {
    keeping: Keeping,
    read: Result<(), KeptFault>,
    pairings: Pairings,
    minted: MintedTokens,
}

/// As a gateway starts.
fn start(file: &Path) -> Gateway {
    let pairings = Pairings::new(TaskTracker::new(), CancellationToken::new());
    let minted = MintedTokens::new();
    let (keeping, read) = Keeping::open(file.to_owned(), &pairings, &minted);
    Gateway { keeping, read, pairings, minted }
}

impl Gateway {
    async fn enter(&self, database: &str, provider: &Provider) -> Result<PairingEntry, LoginError> {
        let logins = Logins::new(provider.clone(), None, (10, 10));
        let wanted = Wanted { user: "app", database, address: None };
        let asked = Asked::from([10, 0, 0, 1].into()).saying("worker", "app", database);
        within(self.pairings.enter(&Secret::new(SECRET), wanted, asked, &logins)).await
    }

    /// The secret, approved by somebody.
    async fn pair(&self, database: &str, demo: &DemoProvider, who: &str) -> Result<Principal, LoginError> {
        let PairingEntry::Waiting(mut waiter) = self.enter(database, &provider(demo.issuer())).await? else {
            panic!("it was approved already");
        };
        demo.approve(waiter.login.user_code(), who).unwrap();
        within(waiter.wait()).await
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logins");
    (dir, file)
}

#[tokio::test]
async fn a_restart_knows_paired_secrets_their_owners_and_minted_tokens() {
    let ((_dir, file), demo) = (folder(), demo().await);
    let before = start(&file);
    assert!(before.read.is_ok());
    let alice = before.pair("shop", &demo, "alice").await.unwrap();
    let token = before.minted.mint(&Principal::for_test("bob", &["support"]), GRACE).unwrap();
    before.keeping.save().unwrap();

    let after = start(&file);
    assert!(after.read.is_ok());
    let PairingEntry::Approved(found) = after.enter("shop", &provider(demo.issuer())).await.unwrap() else {
        panic!("an approval is asked for again");
    };
    assert_eq!((found.login(), found.mode(), found.user()), (alice.login(), Mode::Pairing, alice.user()));
    let bob = after.minted.lookup(token.reveal()).unwrap();
    assert_eq!((bob.user(), bob.groups(), bob.mode()), ("bob", &["support".to_owned()][..], Mode::Minted));
    // Whose the secret is, is known as well.
    assert_eq!(after.pair("billing", &demo, "bob").await.err(), Some(LoginError::OtherPerson));
    assert!(after.pair("billing", &demo, "alice").await.is_ok());
    assert_eq!(after.pairings.list().len(), 2);
}

#[tokio::test]
async fn the_file_is_for_the_gateway_alone_and_holds_no_secret() {
    let ((_dir, file), demo) = (folder(), demo().await);
    let gateway = start(&file);
    let alice = gateway.pair("shop", &demo, "alice").await.unwrap();
    let token = gateway.minted.mint(&alice, GRACE).unwrap();
    gateway.keeping.save().unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let secret = token.reveal().rsplit('_').next().unwrap();
    let refresh = alice.refresh_token().unwrap().reveal().to_owned();
    for word in [SECRET, secret, refresh.as_str()] {
        assert!(!text.contains(word));
    }
    assert!(text.contains("alice@example.com"));
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no draft is left");
}

#[tokio::test]
async fn what_has_ended_or_was_ended_does_not_come_back() {
    let (_dir, file) = folder();
    let before = start(&file);
    let ann = Principal::for_test("ann", &[]);
    let issued = before.minted.issue(&ann, GRACE, About::now()).unwrap();
    let over = before.minted.issue(&ann, Duration::from_secs(1), About::now()).unwrap();
    before.keeping.save().unwrap();
    tokio::time::sleep(over.principal.time_left(SystemTime::now())).await;
    let after = start(&file);
    assert!(after.minted.lookup(issued.token.reveal()).is_some());
    assert!(after.minted.lookup(over.token.reveal()).is_none());
    assert!(after.minted.revoke_one(&issued.id));
    after.keeping.save().unwrap();
    assert!(start(&file).minted.list().is_empty());
}

#[tokio::test]
async fn a_login_that_could_be_renewed_can_be_again_as_soon_as_its_client_is_back() {
    let ((_dir, file), demo) = (folder(), demo().await);
    let before = start(&file);
    let alice = before.pair("shop", &demo, "alice").await.unwrap();
    let token = before.minted.mint(&alice, GRACE).unwrap();
    let provider = provider(demo.issuer());
    // The provider rotates refresh tokens: the last one counts.
    let renewed = provider.renew(&alice).await.unwrap().unwrap();
    before.pairings.renewed(&renewed);
    before.minted.renewed(&renewed);
    before.keeping.save().unwrap();

    let after = start(&file);
    assert!(!after.pairings.list()[0].principal.is_renewable(), "not before the client brings its secret");
    after.keeping.save().unwrap();
    let again = start(&file);
    let PairingEntry::Approved(found) = again.enter("shop", &provider).await.unwrap() else {
        panic!("asked anew")
    };
    assert_eq!(
        (found.login(), found.expires()),
        (alice.login(), after.pairings.list()[0].principal.expires())
    );
    assert!(provider.renew(&found).await.unwrap().is_ok(), "by what was sealed, over two restarts");
    let by_token = again.minted.lookup(token.reveal()).unwrap();
    assert!(by_token.is_renewable());
    // Whom the provider disables meanwhile stays out.
    demo.disable("alice");
    assert_eq!(provider.renew(&by_token).await.unwrap().err(), Some(LoginError::Denied));
}

#[track_caller]
fn refused(file: &Path) {
    let after = start(file);
    assert!(after.read.is_err(), "it was trusted");
    assert!(after.minted.list().is_empty() && after.pairings.list().is_empty());
    assert!(!file.exists() && file.with_extension("refused").symlink_metadata().is_ok(), "it was put aside");
}

#[tokio::test]
async fn a_damaged_file_is_not_trusted_wherever_the_damage_is() {
    let (_dir, file) = folder();
    let before = start(&file);
    before.minted.mint(&Principal::for_test("ann", &[]), GRACE).unwrap();
    before.keeping.save().unwrap();
    let whole = fs::read(&file).unwrap();
    let put = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        put(&bytes);
        refused(&file);
        put(&whole[..at]);
        refused(&file);
    }
    put(&[&whole[..], b"more"].concat());
    refused(&file);
    put(&whole);
    assert_eq!(start(&file).minted.list().len(), 1, "the whole one is trusted");
}

#[tokio::test]
async fn a_file_that_others_can_reach_or_that_is_none_is_not_trusted() {
    let (dir, file) = folder();
    let before = start(&file);
    before.keeping.save().unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    refused(&file);
    let other = dir.path().join("other");
    before.keeping.save().unwrap();
    fs::rename(&file, &other).unwrap();
    std::os::unix::fs::symlink(&other, &file).unwrap();
    refused(&file);
    fs::create_dir(&file).unwrap();
    fs::remove_file(file.with_extension("refused")).unwrap();
    refused(&file);
}
