//! The page on which a waiting login is approved: what it shows, whom it lets answer, and when it is over.

use pgwitness_index::record::{Completion, Entry, Event, Outcome, Record, TxnOutcome, Who};
use reqwest::Response;
use uuid::Uuid;

use super::signing_in::{Browser, at_provider, location};
use super::{ANA, House, MARIA};
use crate::http::when;
use crate::identity::{Asked, LoginError, Mode, Opens, PendingLogin, Principal};

fn asked(program: &str, role: &str) -> Asked {
    Asked::from([10, 1, 2, 3].into()).saying(program, role, "shop")
}

async fn waiting(house: &House) -> PendingLogin {
    house.logins.begin(asked("psql", "app_read")).await.unwrap()
}

fn page(house: &House, login: &PendingLogin, below: &str) -> url::Url {
    assert!(login.link().starts_with(house.url.as_str()), "the link is ours: {}", login.link());
    format!("{}{below}", login.link()).parse().unwrap()
}

/// A browser that typed the code and whose person signed in; the page that asks for the answer.
async fn asked_as(house: &House, login: &PendingLogin, who: &str) -> (Browser, String) {
    let mut browser = Browser::default();
    let taken = browser.post(house, page(house, login, ""), &[("code", login.user_code())]).await;
    assert_eq!(taken.status(), 200);
    let taken = taken.text().await.unwrap();
    assert!(taken.contains("http-equiv=\"refresh\"") && taken.contains("/sign-in\">Sign in</a>"), "{taken}");
    let led = browser.get(house, page(house, login, "/sign-in")).await;
    let back = at_provider(house, &led, who).await;
    let back = browser.get(house, back).await;
    assert_eq!(back.status(), 303);
    assert_eq!(
        browser.cookies.keys().collect::<Vec<_>>(),
        ["pgwitness_demo_device"],
        "signed in to nothing else"
    );
    let shown = browser.get(house, house.at(&location(&back))).await;
    assert_eq!(shown.status(), 200);
    (browser, shown.text().await.unwrap())
}

fn token(shown: &str) -> String {
    let (_, rest) = shown.split_once("name=\"token\" value=\"").unwrap_or_else(|| panic!("{shown}"));
    rest.split('"').next().unwrap().to_owned()
}

async fn say(
    house: &House,
    login: &PendingLogin,
    browser: &mut Browser,
    shown: &str,
    word: &str,
) -> Response {
    let form = [("token", &*token(shown)), ("answer", word)];
    browser.post(house, page(house, login, "/answer"), &form).await
}

async fn ended(login: &PendingLogin) -> Result<Principal, LoginError> {
    tokio::time::timeout(std::time::Duration::from_secs(20), login.wait()).await.unwrap()
}

#[tokio::test]
async fn a_login_is_approved_by_whoever_has_the_code_and_signs_in_and_as_them() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let mut browser = Browser::default();
    let first = browser.get(&house, page(&house, &login, "")).await;
    for (name, part) in [
        ("content-security-policy", "frame-ancestors 'none'"),
        ("content-security-policy", "script-src 'self'"),
        ("content-security-policy", "form-action 'self'"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert!(first.headers()[name].to_str().unwrap().contains(part), "{name}");
    }
    let first = first.text().await.unwrap();
    for part in ["10.1.2.3", "psql", "app_read", "shop", "this one connection", "<label for=\"code\">"] {
        assert!(first.contains(part), "{part} is missing in {first}");
    }
    assert!(!first.contains(login.user_code()) && !first.contains("<script") && !first.contains(MARIA));
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    assert!(
        shown.contains(&format!("You are <b>{MARIA}</b>")) && shown.contains("new: you never"),
        "{shown}"
    );
    let done = say(&house, &login, &mut browser, &shown, "approve").await;
    assert_eq!(done.status(), 303);
    let told = browser.get(&house, house.at(&location(&done))).await.text().await.unwrap();
    assert!(told.contains("<h1>Approved</h1>"), "{told}");
    let person = ended(&login).await.unwrap();
    assert_eq!((person.user(), person.mode()), (MARIA, Mode::Device));
    assert!(person.auth().contains(&("approved_from".to_owned(), "127.0.0.1".to_owned())));
    assert_eq!(browser.get(&house, house.at("/api/v1/me")).await.status(), 401);
}

#[tokio::test]
async fn whom_the_terminal_claims_to_be_does_not_matter() {
    let house = House::open().await;
    let login = house.logins.begin(asked("psql", ANA)).await.unwrap();
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    say(&house, &login, &mut browser, &shown, "approve").await;
    assert_eq!(ended(&login).await.unwrap().user(), MARIA);
}

#[tokio::test]
async fn a_no_is_recorded_with_whose_it_is_and_ends_the_login() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    assert_eq!(say(&house, &login, &mut browser, &shown, "deny").await.status(), 303);
    assert_eq!(ended(&login).await, Err(LoginError::DeniedBy { who: MARIA.to_owned() }));
    let told = browser.get(&house, page(&house, &login, "")).await.text().await.unwrap();
    assert!(told.contains("<h1>Denied</h1>"));
    let said = "denied psql from 10.1.2.3 for app_read in database shop".to_owned();
    assert_eq!(house.book.readings(Event::LoginDenied), [(MARIA.to_owned(), said)]);
}

#[tokio::test]
async fn a_no_that_cannot_be_recorded_changes_nothing_yet() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    house.book.set_full(true);
    assert_eq!(say(&house, &login, &mut browser, &shown, "deny").await.status(), 503);
    house.book.set_full(false);
    assert_eq!(say(&house, &login, &mut browser, &shown, "deny").await.status(), 303);
}

#[tokio::test]
async fn after_five_wrong_codes_the_request_is_dead_for_everybody() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let mut browser = Browser::default();
    for left in ["4 tries are left", "3 tries are left", "2 tries are left", "one try is left"] {
        let answer = browser.post(&house, page(&house, &login, ""), &[("code", "bbbb-bbb")]).await;
        assert_eq!(answer.status(), 422);
        assert!(answer.text().await.unwrap().contains(left), "{left}");
    }
    let answer = browser.post(&house, page(&house, &login, ""), &[("code", "")]).await;
    assert_eq!(answer.status(), 410);
    let right = browser.post(&house, page(&house, &login, ""), &[("code", login.user_code())]).await;
    assert_eq!(right.status(), 410);
    assert_eq!(ended(&login).await, Err(LoginError::Guessed));
}

#[tokio::test]
async fn one_address_guesses_at_few_requests() {
    let house = House::open().await;
    let mut browser = Browser::default();
    for _ in 0..4 {
        let login = waiting(&house).await;
        for _ in 0..5 {
            browser.post(&house, page(&house, &login, ""), &[("code", "ZZZZ-ZZZZ")]).await;
        }
    }
    let login = waiting(&house).await;
    let answer = browser.post(&house, page(&house, &login, ""), &[("code", login.user_code())]).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn the_code_is_taken_as_people_type_it() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let typed = login.user_code().to_lowercase().replace('-', " ");
    let answer = Browser::default().post(&house, page(&house, &login, ""), &[("code", &typed)]).await;
    assert_eq!(answer.status(), 200);
    let code = login.user_code();
    assert_eq!((code.len(), code.find('-')), (9, Some(4)));
    assert!(code.bytes().all(|b| b == b'-' || (b.is_ascii_uppercase() && !b"AEIOUY".contains(&b))), "{code}");
}

#[tokio::test]
async fn a_client_that_left_makes_an_honest_page_and_no_approval() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    let (first, answer) = (page(&house, &login, ""), page(&house, &login, "/answer"));
    drop(login);
    let late = browser.post(&house, answer, &[("token", &token(&shown)), ("answer", "approve")]).await;
    assert_eq!(late.status(), 410);
    assert!(late.text().await.unwrap().contains("The client left"));
    assert_eq!(browser.get(&house, first).await.status(), 410);
}

#[tokio::test]
async fn a_request_is_answered_once() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (mut maria, to_maria) = asked_as(&house, &login, MARIA).await;
    let (mut ana, to_ana) = asked_as(&house, &login, ANA).await;
    assert_eq!(say(&house, &login, &mut ana, &to_ana, "approve").await.status(), 303);
    let late = say(&house, &login, &mut maria, &to_maria, "deny").await.text().await.unwrap();
    assert!(late.contains("<h1>Approved</h1>"), "{late}");
    assert_eq!(ended(&login).await.unwrap().user(), ANA);
    assert!(house.book.readings(Event::LoginDenied).is_empty());
}

#[tokio::test]
async fn only_the_browser_that_typed_the_code_and_signed_in_may_answer() {
    let house = House::open().await;
    let (login, other) = (waiting(&house).await, waiting(&house).await);
    let (browser, shown) = asked_as(&house, &login, MARIA).await;
    let right = token(&shown);
    let form = [("token", &*right), ("answer", "approve")];
    let nobody = Browser::default().post(&house, page(&house, &login, "/answer"), &form).await;
    assert_eq!(nobody.status(), 403);
    // The same browser for a request whose code it does not know.
    let foreign = browser.clone().post(&house, page(&house, &other, "/answer"), &form).await;
    assert_eq!(foreign.status(), 403);
    for token in ["", "x"] {
        let form = [("token", token), ("answer", "approve")];
        let forged = browser.clone().post(&house, page(&house, &login, "/answer"), &form).await;
        assert_eq!(forged.status(), 403, "{token}");
    }
    let form = [("token", &*right), ("answer", "maybe")];
    assert_eq!(browser.clone().post(&house, page(&house, &login, "/answer"), &form).await.status(), 400);
    // Signing in without the code leads back to the code.
    let led = Browser::default().get(&house, page(&house, &other, "/sign-in")).await;
    assert_eq!(house.at(&location(&led)), page(&house, &other, ""));
}

#[tokio::test]
async fn what_other_sites_send_in_a_persons_browser_counts_for_nothing() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (browser, shown) = asked_as(&house, &login, MARIA).await;
    let form = format!("token={}&answer=approve", token(&shown));
    for (site, kind, status) in [
        (Some("cross-site"), "application/x-www-form-urlencoded", 403),
        (Some("same-site"), "application/x-www-form-urlencoded", 403),
        (None, "application/x-www-form-urlencoded", 403),
        (Some("same-origin"), "text/plain", 415),
        (Some("same-origin"), "application/json", 415),
    ] {
        for below in ["", "/answer"] {
            let mut request =
                house.http.post(page(&house, &login, below)).header("cookie", browser.cookie_line());
            if let Some(site) = site {
                request = request.header("sec-fetch-site", site);
            }
            let answer = request.header("content-type", kind).body(form.clone()).send().await.unwrap();
            assert_eq!(answer.status(), status, "{site:?} {kind} {below}");
        }
    }
    let long = format!("code={}", "x".repeat(2000));
    let request = house.http.post(page(&house, &login, "")).header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(long);
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn hostile_words_of_the_client_are_shown_as_what_they_are() {
    let house = House::open().await;
    let hostile = "<script>alert(1)</script>\u{1b}[2J\n\u{202e}lqsp\"'{title}";
    let asked = Asked::from([10, 1, 2, 3].into()).saying(hostile, hostile, hostile).opening(Opens::Secret);
    let login = house.logins.begin(asked).await.unwrap();
    let (_, shown) = asked_as(&house, &login, MARIA).await;
    let first = Browser::default().get(&house, page(&house, &login, "")).await.text().await.unwrap();
    for html in [first, shown] {
        assert!(!html.contains("<script") && !html.contains(['\u{1b}', '\u{202e}']), "{html}");
        let told = "&lt;script&gt;alert(1)&lt;/script&gt;&lt;U+001B&gt;[2J&lt;U+000A&gt;&lt;U+202E&gt;lqsp&quot;&#39;&#123;title}";
        assert_eq!(html.matches(told).count(), 3, "{html}");
        assert!(html.contains("every connection with the same password"));
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_answered_like_any_other() {
    let house = House::open().await;
    let mut told = Vec::new();
    for id in ["AAAAAAAAAAAAAAAAAAAAAA", "x", "%3Cscript%3E", "..%2f..%2fapi"] {
        let answer = Browser::default().get(&house, house.at(&format!("/device/{id}"))).await;
        assert_eq!(answer.status(), 404, "{id}");
        told.push(answer.text().await.unwrap());
        let form = [("code", "BBBB-BBBB")];
        let answer = Browser::default().post(&house, house.at(&format!("/device/{id}")), &form).await;
        assert_eq!(answer.status(), 404, "{id}");
        told.push(answer.text().await.unwrap());
    }
    told.dedup();
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn a_device_is_known_from_which_the_person_logged_in_before() {
    let house = House::open().await;
    let login = waiting(&house).await;
    let (mut browser, shown) = asked_as(&house, &login, MARIA).await;
    say(&house, &login, &mut browser, &shown, "approve").await;
    let maria = ended(&login).await.unwrap();
    let who = Who {
        user: maria.user().to_owned(),
        sub: maria.sub().to_owned(),
        iss: maria.iss().to_owned(),
        device: asked("psql", "app_read").machine().id_for(&maria),
        ..Who::default()
    };
    house.book.write(&[Entry::Record(Box::new(Record {
        id: Uuid::now_v7(),
        time: when::now(),
        event: Event::LoginOk,
        who: who.into(),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail: "device".to_owned(),
        done: Some(Completion::new(Outcome::Ok, TxnOutcome::None)),
    }))]);
    let again = waiting(&house).await;
    let (_, shown) = asked_as(&house, &again, MARIA).await;
    assert!(shown.contains("known: your last login from it was at 20"), "{shown}");
    let (_, shown) = asked_as(&house, &again, ANA).await;
    assert!(shown.contains("new: you never"), "Ana's is another: {shown}");
    let elsewhere = house.logins.begin(asked("pgbench", "app_read")).await.unwrap();
    let (_, shown) = asked_as(&house, &elsewhere, MARIA).await;
    assert!(shown.contains("new: you never"), "{shown}");
}

#[tokio::test]
async fn the_demos_visitor_approves_and_denies_as_a_person_would() {
    let house = House::open().await;
    let (yes, no) = (waiting(&house).await, waiting(&house).await);
    for login in [&yes, &no] {
        house.provider.point(login.user_code(), login.link());
    }
    assert_eq!(house.provider.approve_anywhere(yes.user_code(), "maria").await.unwrap().email, MARIA);
    assert_eq!(ended(&yes).await.unwrap().user(), MARIA);
    house.provider.deny_anywhere(no.user_code(), ANA).await.unwrap();
    assert_eq!(ended(&no).await, Err(LoginError::DeniedBy { who: ANA.to_owned() }));
    assert!(house.provider.approve_anywhere(yes.user_code(), "maria").await.is_err(), "one use");
}
