/// What the page does: it hears how things are (`ViewReport`) every two seconds, and draws that. It writes text only as text, so nothing that
/// nodes say of themselves becomes markup.
enum ViewScript {
    static let program = #"""
        "use strict";
        const $ = id => document.getElementById(id);
        const svgName = "http://www.w3.org/2000/svg";
        const historyMax = 150;
        const drawnMax = 120;
        let last = null, report = null, heardAt = 0;
        const history = new Map();

        function element(name, className, text) {
            const made = document.createElement(name);
            if (className) made.className = className;
            if (text !== undefined) made.textContent = text;
            return made;
        }
        function drawing(name, attributes, text) {
            const made = document.createElementNS(svgName, name);
            for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
            if (text !== undefined) made.textContent = text;
            return made;
        }
        function short(value, unit) {
            const step = unit === "octets" ? 1024 : 1000, names = unit === "octets" ? ["B", "KiB", "MiB", "GiB", "TiB"] : ["", "k", "M", "G", "T"];
            let index = 0;
            while (value >= step && index < names.length - 1) { value /= step; index += 1; }
            const digits = value >= 100 || Number.isInteger(value) ? 0 : 1;
            return value.toFixed(digits) + (names[index] ? "\u202f" + names[index] : "");
        }
        function ago(milliseconds) {
            if (milliseconds === null || milliseconds === undefined) return "";
            const seconds = Math.max(0, Math.round((report.nowMilliseconds - milliseconds) / 1000));
            if (seconds < 60) return seconds + " s ago";
            if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
            if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
            return Math.floor(seconds / 86400) + " d ago";
        }

        function showHead() {
            document.title = report.program + " \u2013 " + report.title;
            $("program").textContent = report.program + " " + report.version;
            const hours = report.uptimeMilliseconds / 3600000;
            $("title").textContent = report.title + " \u2013 up " + (hours < 1 ? Math.floor(report.uptimeMilliseconds / 60000) + " min" : hours < 48 ? Math.floor(hours) + " h" : Math.floor(hours / 24) + " d");
            const problems = $("problems");
            problems.hidden = report.problems.length === 0;
            problems.replaceChildren(...report.problems.map(text => element("li", "", text)));
        }

        function showFigures() {
            const seconds = last ? (report.nowMilliseconds - last.nowMilliseconds) / 1000 : 0;
            const cards = [];
            report.figures.forEach((figure, index) => {
                let value = figure.value, title = figure.title;
                if (figure.kind === "count") {
                    const before = last && last.figures[index] && last.figures[index].title === figure.title ? last.figures[index].value : null;
                    if (before === null || seconds <= 0) value = null;
                    else value = Math.max(0, figure.value - before) / seconds;
                    title += " a second";
                }
                const line = history.get(figure.title) || [];
                if (value !== null) { line.push(value); if (line.length > historyMax) line.shift(); }
                history.set(figure.title, line);
                const card = element("div", "figure");
                card.append(element("b", "", value === null ? "\u2013" : short(value, figure.unit)), element("span", "", title));
                const top = Math.max(1e-9, ...line), points = line.map((each, place) => `${place * 100 / (historyMax - 1)},${25 - 24 * each / top}`).join(" ");
                const chart = drawing("svg", {viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true"});
                chart.append(drawing("polyline", {points}));
                card.append(chart);
                cards.push(card);
            });
            $("figures").replaceChildren(...cards);
        }

        function row(cells) {
            const made = element("tr");
            for (const [text, className, title] of cells) {
                const cell = element("td", className || "", text);
                if (title) cell.title = title;
                made.append(cell);
            }
            return made;
        }
        // Relays are many and much the same: they are counted, and named when pointed at.
        function places(list) {
            const own = list.filter(place => !place.startsWith("relay ")), relays = list.length - own.length;
            if (relays) own.push(relays === 1 ? "1 relay" : relays + " relays");
            return [own.join(", "), "places", list.join("\n")];
        }
        function showChanges() {
            const rows = report.changes.map(change => row([
                [ago(change.atMilliseconds)], [change.home], [change.what, change.what], places(change.before), places(change.after)]));
            $("changes").tBodies[0].replaceChildren(...rows.length ? rows : [row([["none since the start", "note"]])]);
        }
        // Of many nodes the report has the first; the server looks for others.
        let searched = null, searching = 0, asking = null;
        const wanted = () => $("filter").value.trim().toLowerCase();
        const hasMore = () => report.nodesCount > report.nodes.length;
        function search() {
            clearTimeout(searching);
            const text = wanted();
            if (!text || !hasMore()) { searched = null; return showNodes(); }
            // One question at a time: of many nodes an answer takes a while, and there is news every two seconds.
            searching = setTimeout(async () => {
                if (asking === text) return;
                asking = text;
                const answer = await fetch("nodes.json?find=" + encodeURIComponent(text)).catch(() => null);
                const found = answer !== null && answer.ok ? await answer.json().catch(() => null) : null;
                if (asking === text) asking = null;
                if (found === null || text !== wanted()) return;
                searched = {text, found};
                showNodes();
            }, 200);
        }
        function showNodes() {
            const text = wanted(), isFound = searched !== null && searched.text === text && hasMore(), listed = report.nodes.length;
            const found = isFound ? searched.found.nodes : report.nodes.filter(node => !text || node.home.includes(text) || node.places.some(place => place.includes(text)));
            $("nodes").tBodies[0].replaceChildren(...found.map(node => row([
                [node.home], places(node.places), [node.state, node.state], [ago(node.heardAtMilliseconds)]])));
            const foundNote = all => found.length + (all.foundCount > found.length ? ` of ${all.foundCount} found` : "")
                + (all.isComplete ? ` among all ${all.lookedAtCount}` : ` among the ${all.lookedAtCount} of ${report.nodesCount} that were looked at; a whole home address is found among all`);
            $("nodes-note").textContent = isFound ? foundNote(searched.found)
                : hasMore() ? (text ? `${found.length} among the ${listed} that are listed here` : `${listed} are listed here`) + ` of ${report.nodesCount}`
                    + (report.program === "imsd" ? "; mat ims list has all." : ".")
                : `${found.length} of ${report.nodesCount}`;
        }

        // The network that a place is in, roughly: 24 bits of IPv4, 48 of IPv6; a relay is one of its own.
        function network(place) {
            if (place.startsWith("relay ")) return place;
            let address = place.replace(/\/\d+$/, "");
            if (address.startsWith("[")) address = address.slice(1, address.indexOf("]"));
            else if (/^[\d.]+:\d+$/.test(address)) address = address.slice(0, address.indexOf(":"));
            if (address.includes(":")) return address.split("::")[0].split(":").slice(0, 3).join(":") + "::/48";
            return address.split(".").slice(0, 3).join(".") + ".0/24";
        }
        function showMap() {
            const map = $("map"), nodes = report.nodes.slice(0, drawnMax), groups = new Map();
            for (const node of nodes) {
                const key = node.places.length ? network(node.places[0]) : "nowhere";
                if (!groups.has(key)) groups.set(key, []);
                groups.get(key).push(node);
            }
            const width = 1000, radiusOf = count => 16 + 9 * Math.sqrt(count), sorted = [...groups.entries()].sort((a, b) => a[0] < b[0] ? -1 : 1);
            const columns = Math.max(1, Math.min(sorted.length, Math.ceil(Math.sqrt(sorted.length * 2))));
            const cell = width / columns, place = new Map(), parts = [], lines = [];
            let height = 0, top = 0, rowHeight = 0;
            sorted.forEach(([name, members], index) => {
                if (index % columns === 0 && index) { top += rowHeight; rowHeight = 0; }
                const radius = Math.min(cell / 2 - 12, radiusOf(members.length) + (members.length > 1 ? 18 : 0));
                rowHeight = Math.max(rowHeight, 2 * radius + 64);
                const x = (index % columns + .5) * cell, y = top + radius + 26;
                parts.push(drawing("circle", {class: "network", cx: x, cy: y, r: radius}), drawing("text", {x, y: y + radius + 16, "text-anchor": "middle"}, name));
                members.forEach((node, number) => {
                    const turn = 2 * Math.PI * number / members.length - Math.PI / 2, reach = members.length === 1 ? 0 : radius - 12;
                    const at = {x: x + reach * Math.cos(turn), y: y + reach * Math.sin(turn)};
                    place.set(node.home, at);
                    const dot = drawing("circle", {class: node.state === "registered" || node.state === "bound" ? "node" : "node gone", cx: at.x, cy: at.y, r: 5});
                    dot.append(drawing("title", {}, node.home + "\n" + node.places.join("\n")));
                    parts.push(dot);
                    if (members.length <= 8) parts.push(drawing("text", {class: "home", x: at.x, y: at.y - 8, "text-anchor": "middle"}, node.home));
                });
                height = Math.max(height, top + rowHeight);
            });
            $("map-title").textContent = report.conversations.length ? "Who is where, and talks to whom" : "Who is where";
            for (const talk of report.conversations) {
                const from = place.get(talk.from), to = place.get(talk.to);
                if (!from || !to) continue;
                const middle = {x: (from.x + to.x) / 2 + (to.y - from.y) * .12, y: (from.y + to.y) / 2 - (to.x - from.x) * .12};
                lines.push(drawing("path", {class: "talk", d: `M${from.x} ${from.y} Q${middle.x} ${middle.y} ${to.x} ${to.y}`}));
            }
            map.setAttribute("viewBox", `0 0 ${width} ${Math.max(60, height)}`);
            map.replaceChildren(...lines, ...parts);
            $("map-note").textContent = nodes.length < report.nodesCount ? `${nodes.length} of ${report.nodesCount} nodes are drawn.`
                : report.nodesCount ? "" : "Nobody is registered yet.";
        }

        // Many nodes: networks on a circle, as large as their nodes are many, and lines as thick as conversations are.
        let pointedAt = null;
        function point(name) {
            pointedAt = name;
            const map = $("map");
            map.classList.toggle("pointed", name !== null);
            for (const part of map.querySelectorAll("[data-networks]")) part.classList.toggle("on", name !== null && part.dataset.networks.split(" | ").includes(name));
        }
        function showNetworks() {
            const map = $("map"), width = 1000, height = 800, middle = {x: width / 2, y: height / 2}, reach = 235;
            const networks = [...report.networks].sort((a, b) => (a.name === "others") - (b.name === "others") || (a.name < b.name ? -1 : 1));
            const most = Math.max(1, ...networks.map(network => network.nodesCount)), place = new Map(), lines = [], parts = [];
            const within = new Map(report.traffic.filter(each => each.between === each.and).map(each => [each.between, each.conversationsCount]));
            networks.forEach((network, index) => {
                const turn = 2 * Math.PI * index / networks.length - Math.PI / 2, x = middle.x + reach * Math.cos(turn), y = middle.y + reach * Math.sin(turn);
                const radius = 4 + 16 * Math.sqrt(network.nodesCount / most), isLeft = Math.cos(turn) < -1e-9;
                place.set(network.name, {x, y});
                const group = drawing("g", {"data-networks": network.name, class: "place"});
                group.append(drawing("title", {}, `${network.name}: ${network.nodesCount} nodes`
                    + (network.awayCount ? `, ${network.awayCount} of them away` : "") + (within.has(network.name) ? `, ${within.get(network.name)} conversations within` : "")));
                group.append(drawing("circle", {class: network.awayCount * 2 > network.nodesCount ? "node gone" : "node", cx: x, cy: y, r: radius}));
                const out = reach + radius + 8, degrees = turn * 180 / Math.PI + (isLeft ? 180 : 0);
                const at = {x: middle.x + out * Math.cos(turn), y: middle.y + out * Math.sin(turn)};
                group.append(drawing("text", {x: at.x, y: at.y, "text-anchor": isLeft ? "end" : "start", "dominant-baseline": "central",
                    transform: `rotate(${degrees} ${at.x} ${at.y})`}, `${network.name} \u00b7 ${network.nodesCount}`));
                group.addEventListener("pointerenter", () => point(network.name));
                group.addEventListener("pointerleave", () => point(null));
                parts.push(group);
            });
            const busiest = Math.max(1, ...report.traffic.map(each => each.conversationsCount));
            let drawn = 0;
            for (const each of report.traffic) {
                const from = place.get(each.between), to = place.get(each.and);
                if (!from || !to) continue;
                drawn += each.conversationsCount;
                if (from === to) continue;
                const line = drawing("path", {class: "talk", "data-networks": each.between + " | " + each.and, d: `M${from.x} ${from.y} Q${middle.x} ${middle.y} ${to.x} ${to.y}`,
                    "stroke-width": .6 + 6 * Math.sqrt(each.conversationsCount / busiest)});
                line.append(drawing("title", {}, `${each.between} \u2013 ${each.and}: ${each.conversationsCount} conversations`));
                lines.push(line);
            }
            map.setAttribute("viewBox", `0 0 ${width} ${height}`);
            map.replaceChildren(...lines, ...parts);
            point(place.has(pointedAt) ? pointedAt : null);
            const rest = report.networksCount - networks.filter(network => network.name !== "others").length;
            $("map-title").textContent = report.conversationsCount ? "How many are where, and talk to where" : "How many are where";
            $("map-note").textContent = (report.surveyedCount < report.nodesCount ? `${report.surveyedCount} of ${report.nodesCount}` : `All ${report.nodesCount}`)
                + ` nodes, by network: ${report.networksCount} networks` + (rest ? `, the smallest ${rest} together as others` : "") + "."
                + (report.conversationsCount ? ` Lines: ${drawn} of ${report.conversationsCount} conversations, thicker for more. Point at a network to see its own.` : "");
        }
        function showPlaces() {
            if (report.nodesCount > drawnMax) return showNetworks();
            point(null);
            showMap();
        }

        function show() { showHead(); showFigures(); showPlaces(); showChanges(); showNodes(); if (wanted() && hasMore()) search(); }
        function tell(isLive) {
            $("state").textContent = isLive ? "live" : "no word from the server for " + Math.round((Date.now() - heardAt) / 1000) + " s";
            $("state").className = isLive ? "live" : "lost";
        }
        const events = new EventSource("events");
        events.onmessage = event => {
            const fresh = JSON.parse(event.data);
            if (fresh.format !== 1) return;
            [last, report, heardAt] = [report, fresh, Date.now()];
            show();
            tell(true);
        };
        setInterval(() => { if (heardAt && Date.now() - heardAt > 6000) tell(false); }, 1000);
        $("filter").addEventListener("input", () => { if (report) { showNodes(); search(); } });

        """#
}
