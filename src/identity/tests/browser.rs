//! Login in the browser, and the demo provider's pages and doors.

use std::collections::HashMap;

use reqwest::{Client, Response, redirect};
use serde_json::json;
use url::Url;

use super::super::{Authorization, LoginError, Mode, TokenFault};
use super::script::Script;
use super::{demo, provider, within};
use crate::demo::provider::DemoProvider;

/// A browser that shows redirects instead of following them.
fn browser() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap()
}

fn home() -> Url {
    Url::parse("http://127.0.0.1:7432/auth/callback").unwrap()
}

/// Signs in as somebody: the page's form, filled in and sent. Returns code and state.
async fn sign_in(demo: &DemoProvider, authorization: &Authorization, who: &str) -> HashMap<String, String> {
    let page = browser().get(authorization.url.clone()).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("alice@example.com") && !page.contains("<script"));
    let mut form: Vec<(String, String)> = authorization.url.query_pairs().into_owned().collect();
    form.push(("user".to_owned(), who.to_owned()));
    let sent = browser().post(format!("{}/authorize", demo.issuer())).form(&form).send().await.unwrap();
    assert_eq!(sent.status(), 303);
    let back = Url::parse(sent.headers()["location"].to_str().unwrap()).unwrap();
    assert!(back.as_str().starts_with(home().as_str()));
    back.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_browser_comes_back_as_its_person() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let authorization = within(provider.authorize(&home())).await.unwrap();
    let back = within(sign_in(&demo, &authorization, "alice@example.com")).await;
    assert_eq!(back["state"], authorization.state);
    let principal = within(provider.exchange(&authorization, &home(), &back["code"])).await.unwrap();
    assert_eq!((principal.user(), principal.mode()), ("alice@example.com", Mode::Browser));
    let again = within(provider.exchange(&authorization, &home(), &back["code"])).await;
    assert!(matches!(again, Err(LoginError::Refused { .. })));
}

#[tokio::test]
async fn a_code_serves_only_the_login_that_asked_for_it() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let mine = within(provider.authorize(&home())).await.unwrap();
    let theirs = within(provider.authorize(&home())).await.unwrap();
    let back = within(sign_in(&demo, &theirs, "alice")).await;
    let stolen = within(provider.exchange(&mine, &home(), &back["code"])).await;
    assert!(matches!(stolen, Err(LoginError::Refused { .. })));
    let back = within(sign_in(&demo, &theirs, "alice")).await;
    let elsewhere = Url::parse("http://127.0.0.1:1/").unwrap();
    assert!(within(provider.exchange(&theirs, &elsewhere, &back["code"])).await.is_err());
    let back = within(sign_in(&demo, &theirs, "nobody")).await;
    assert_eq!(back["error"], "access_denied");
}

#[tokio::test]
async fn an_answer_to_another_question_is_refused() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let authorization = within(provider.authorize(&home())).await.unwrap();
    for nonce in [json!("replayed"), json!(null)] {
        let mut claims = script.claims();
        claims["nonce"] = nonce;
        script.say("/token", 200, &script.tokens(&claims));
        let result = within(provider.exchange(&authorization, &home(), "code")).await;
        assert_eq!(result, Err(LoginError::BadToken(TokenFault::Nonce)));
    }
    let shown = format!("{authorization:?}");
    let nonce = authorization.url.query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned();
    assert_eq!(shown.matches(&nonce).count(), 1, "the nonce shows outside of the URL");
}

async fn post(demo: &DemoProvider, path: &str, form: &[(&str, &str)]) -> Response {
    within(browser().post(format!("{}{path}", demo.issuer())).form(form).send()).await.unwrap()
}

#[tokio::test]
async fn another_process_approves_with_a_form() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let login = within(provider.start_device()).await.unwrap();
    let code = login.user_code.as_str();
    let wrong = post(&demo, "/approve", &[("user_code", code), ("user", "mallory")]).await;
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.unwrap().contains("alice@example.com"));
    assert_eq!(post(&demo, "/approve", &[("user_code", "ZZZZ-ZZZZ"), ("user", "bob")]).await.status(), 404);
    let right = post(&demo, "/approve", &[("user_code", code), ("user", "bob")]).await;
    assert_eq!(right.text().await.unwrap(), r#"{"user":"bob@example.com"}"#);
    assert_eq!(post(&demo, "/approve", &[("user_code", code), ("user", "bob")]).await.status(), 409);
    assert_eq!(within(provider.wait_device(&login)).await.unwrap().user(), "bob@example.com");
}

#[tokio::test]
async fn the_approval_page_shows_the_code_and_who_one_can_be() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let login = within(provider.start_device()).await.unwrap();
    let page = within(browser().get(login.link()).send()).await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let text = page.text().await.unwrap();
    assert!(text.contains(&login.user_code) && text.contains("bob@example.com") && text.contains("Deny"));
    assert!(text.contains("&lt;b&gt;Eve&lt;/b&gt;") && !text.contains("<b>Eve"));
    let sent = post(&demo, "/device", &[("user_code", &login.user_code), ("deny", "yes")]).await;
    assert!(sent.text().await.unwrap().contains("denied"));
    assert_eq!(within(provider.wait_device(&login)).await, Err(LoginError::Denied));
    let odd = format!("{}/device?user_code=%3Cscript%3E", demo.issuer());
    assert!(!within(browser().get(odd).send()).await.unwrap().text().await.unwrap().contains("<script"));
}

#[tokio::test]
async fn the_demo_provider_answers_neither_foreign_names_nor_foreign_pages() {
    let demo = demo().await;
    let url = format!("{}/approve", demo.issuer());
    for host in ["evil.example.com", "127.0.0.1.evil.com", "evil@127.0.0.1", "10.0.0.1:80", ""] {
        let sent = browser().post(&url).header("host", host).form(&[("user_code", "x")]).send();
        let status = within(sent).await.unwrap().status();
        assert!(status == 403 || status == 400, "{host}: {status}");
    }
    for origin in ["https://evil.example.com", "null", "http://127.0.0.1:1"] {
        let sent = browser().post(&url).header("origin", origin).form(&[("user_code", "x")]).send();
        assert_eq!(within(sent).await.unwrap().status(), 403, "{origin}");
    }
    let sent =
        browser().post(&url).header("origin", demo.issuer()).form(&[("user_code", "x"), ("user", "bob")]);
    assert_eq!(within(sent.send()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_demo_providers_tokens_open_its_userinfo_and_log_in() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let login = within(provider.start_device()).await.unwrap();
    demo.approve(&login.user_code, "Alice").unwrap();
    let now = super::script::now();
    let access = demo.key().sign(
        "at+jwt",
        &json!({"iss": demo.issuer(), "aud": "pgwitness", "sub": "s", "iat": now, "exp": now + 60,
            "email": "alice@example.com", "email_verified": true}),
    );
    assert_eq!(within(provider.verify_token(&access)).await.unwrap().user(), "alice@example.com");
    let ask = |token: String| browser().get(format!("{}/userinfo", demo.issuer())).bearer_auth(token).send();
    let text = within(ask(access.clone())).await.unwrap().text().await.unwrap();
    assert!(text.contains("\"support\""), "{text}");
    assert_eq!(within(ask(format!("{access}x"))).await.unwrap().status(), 401);
}
