//! A browser signing in and out, and what other sites cannot do with its cookies.

use std::collections::BTreeMap;

use pgwitness_index::record::Event;
use reqwest::Response;
use reqwest::header::{HOST, LOCATION, SET_COOKIE};
use url::Url;

use super::{House, MARIA};

/// As much of a browser as signing in needs.
#[derive(Default, Clone)]
pub(super) struct Browser {
    pub(super) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(super) fn cookie_line(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub(super) async fn get(&mut self, house: &House, url: Url) -> Response {
        let answer = house.http.get(url).header("cookie", self.cookie_line()).send().await.unwrap();
        self.keep(answer)
    }

    /// Sends a form of one of our pages.
    pub(super) async fn post(&mut self, house: &House, url: Url, form: &[(&str, &str)]) -> Response {
        let request = house.http.post(url).header("cookie", self.cookie_line());
        let answer = request.header("sec-fetch-site", "same-origin").form(form).send().await.unwrap();
        self.keep(answer)
    }

    /// Keeps the cookies of an answer.
    fn keep(&mut self, answer: Response) -> Response {
        for line in answer.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(
                line.contains("HttpOnly") && line.contains("SameSite=Lax") && line.contains("Path=/"),
                "{line}"
            );
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            match value {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.into(), value.into()),
            };
        }
        answer
    }

    /// From a page of ours to the provider and back; the callback's address is not opened yet.
    async fn begin(&mut self, house: &House, page: &str) -> Url {
        let answer = self.get(house, house.at(page)).await;
        assert_eq!(answer.status(), 303);
        let login = house.at(location(&answer).as_str());
        let answer = self.get(house, login).await;
        at_provider(house, &answer, MARIA).await
    }
}

/// What the provider sends the browser back to, when its person has signed in there.
pub(super) async fn at_provider(house: &House, led: &Response, who: &str) -> Url {
    let at_provider: Url = location(led).parse().unwrap();
    let mut form: Vec<(String, String)> = at_provider.query_pairs().into_owned().collect();
    form.push(("user".into(), who.into()));
    let answer =
        house.http.post(format!("{}/authorize", house.provider.issuer())).form(&form).send().await.unwrap();
    location(&answer).parse().unwrap()
}

pub(super) fn location(answer: &Response) -> String {
    answer.headers()[LOCATION].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_signs_in_comes_back_to_its_search_and_signs_out() {
    let house = House::open().await;
    let mut browser = Browser::default();
    let callback = browser.begin(&house, "/?q=table%3Aorders").await;
    let answer = browser.get(&house, callback).await;
    assert_eq!((answer.status().as_u16(), location(&answer).as_str()), (303, "/?q=table%3Aorders"));
    assert_eq!(browser.cookies.keys().collect::<Vec<_>>(), ["pgwitness_demo"]);
    assert_eq!(house.book.readings(Event::LoginOk), [(MARIA.to_owned(), "signed in to the page".to_owned())]);
    let page = browser.get(&house, house.at("/?q=table%3Aorders")).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(page.text().await.unwrap().contains("id=\"results\""));
    assert_eq!(browser.get(&house, house.at("/api/v1/events")).await.status(), 200);
    let stolen = browser.clone();
    let out = house.http.post(house.at("/auth/logout")).header("cookie", browser.cookie_line());
    let out =
        out.header("sec-fetch-site", "same-origin").header("content-type", "application/json").body("{}");
    assert_eq!(out.send().await.unwrap().status(), 204);
    assert_eq!(stolen.clone().get(&house, house.at("/api/v1/events")).await.status(), 401);
}

#[tokio::test]
async fn over_https_the_cookie_is_for_this_host_alone_and_never_sent_in_the_clear() {
    let house = House::reached(crate::http::Reach::Https).await;
    let led = house.http.get(house.at("/auth/login")).send().await.unwrap();
    let mut browser = Browser::default();
    let mut back = at_provider(&house, &led, MARIA).await;
    assert_eq!(back.scheme(), "https");
    // What ends HTTPS in front of us passes it on.
    back.set_scheme("http").unwrap();
    browser.keep(led);
    let answer = house.http.get(back).header("cookie", browser.cookie_line()).send().await.unwrap();
    let lines = answer.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap());
    let line = lines.into_iter().find(|line| line.starts_with("__Host-pgwitness=")).unwrap().to_owned();
    for part in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("Domain"), "{line}");
    let cookie = line.split(';').next().unwrap();
    let me = house.http.get(house.at("/api/v1/me")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(me.status(), 200);
}

#[tokio::test]
async fn a_sign_in_ends_only_once_and_in_the_browser_that_began_it() {
    let house = House::open().await;
    let mut browser = Browser::default();
    let callback = browser.begin(&house, "/").await;
    let mut other = Browser::default();
    assert_eq!(other.get(&house, callback.clone()).await.status(), 400);
    assert!(other.cookies.is_empty());
    let mut browser = Browser::default();
    let callback = browser.begin(&house, "/").await;
    assert_eq!(browser.get(&house, callback.clone()).await.status(), 303);
    assert_eq!(browser.get(&house, callback).await.status(), 400);
}

#[tokio::test]
async fn a_sign_in_that_the_provider_refuses_says_so_without_a_session() {
    let house = House::open().await;
    let mut browser = Browser::default();
    let mut callback = browser.begin(&house, "/").await;
    let state = callback.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    callback.query_pairs_mut().clear().append_pair("error", "access_denied").append_pair("state", &state);
    callback.query_pairs_mut().append_pair("error_description", "<script>alert(1)</script>");
    let answer = browser.get(&house, callback).await;
    assert_eq!(answer.status(), 403);
    assert!(!answer.text().await.unwrap().contains("<script>alert"));
    assert!(!browser.cookies.contains_key("pgwitness_demo"));
}

#[tokio::test]
async fn a_sign_in_leads_back_to_our_own_paths_only() {
    let house = House::open().await;
    for next in ["https://evil.example", "//evil.example", "/\\evil.example"] {
        let mut url = house.at("/auth/login");
        url.query_pairs_mut().append_pair("next", next);
        assert_eq!(Browser::default().get(&house, url).await.status(), 400, "{next}");
    }
}

#[tokio::test]
async fn another_site_can_do_nothing_with_our_cookie() {
    let house = House::open().await;
    let mut browser = Browser::default();
    let callback = browser.begin(&house, "/").await;
    browser.get(&house, callback).await;
    let get = async |path: &str, site: &str, mode: &str| {
        let request = house.http.get(house.at(path)).header("cookie", browser.cookie_line());
        request
            .header("sec-fetch-site", site)
            .header("sec-fetch-mode", mode)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(get("/api/v1/events", "cross-site", "no-cors").await, 403);
    assert_eq!(get("/api/v1/events", "same-site", "navigate").await, 403);
    assert_eq!(get("/api/v1/events", "same-origin", "cors").await, 200);
    assert_eq!(get("/?q=x", "cross-site", "navigate").await, 200);
    let post = async |path: &str, site: Option<&str>, kind: &str| {
        let mut request = house.http.post(house.at(path)).header("cookie", browser.cookie_line());
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        request.header("content-type", kind).body("{}").send().await.unwrap().status().as_u16()
    };
    let json = "application/json";
    assert_eq!(post("/api/v1/events/search", None, json).await, 403);
    assert_eq!(post("/api/v1/events/search", Some("cross-site"), json).await, 403);
    assert_eq!(post("/api/v1/events/search", Some("same-origin"), "text/plain").await, 415);
    assert_eq!(post("/api/v1/events/search", Some("same-origin"), json).await, 200);
    assert_eq!(post("/auth/logout", Some("cross-site"), json).await, 403);
    assert_eq!(post("/auth/logout", None, json).await, 403);
    assert_eq!(browser.get(&house, house.at("/api/v1/me")).await.status(), 200);
}

#[tokio::test]
async fn the_page_by_another_loopback_name_leads_to_its_public_address() {
    let house = House::open().await;
    let name = format!("localhost:{}", house.url.port().unwrap());
    let answer = house.http.get(house.at("/?q=a%26b")).header(HOST, name).send().await.unwrap();
    assert_eq!(location(&answer), house.at("/?q=a%26b").as_str());
}

#[tokio::test]
async fn a_foreign_name_that_leads_to_us_is_not_answered() {
    let house = House::open().await;
    for path in ["/", "/api/v1/events", "/ui/app.js", "/nothing"] {
        let answer = house.http.get(house.at(path)).header(HOST, "evil.example").send().await.unwrap();
        assert_eq!(answer.status(), 421, "{path}");
    }
    assert_eq!(house.http.get(house.at("/ui/app.js")).send().await.unwrap().status(), 200);
}
