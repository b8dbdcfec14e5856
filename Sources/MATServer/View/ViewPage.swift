/// The page itself; what is in it comes by events (`ViewScript`).
enum ViewPage {
    static let document = #"""
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>MAT</title>
        <link rel="icon" href="data:,">
        <link rel="stylesheet" href="view.css">
        <script src="view.js" defer></script>
        </head>
        <body>
        <header>
        <h1 id="program">MAT</h1>
        <p id="title"></p>
        <p id="state" role="status">connecting</p>
        </header>
        <main>
        <ul id="problems" hidden></ul>
        <section id="figures" aria-label="Figures"></section>
        <section id="map-section"><h2 id="map-title">Who is where</h2>
        <svg id="map" role="img" aria-label="Nodes by network; lines join those that talk"></svg><p id="map-note" class="note"></p></section>
        <section><h2>Latest changes</h2>
        <div class="scroll"><table id="changes"><thead><tr><th>When</th><th>Home address</th><th>What</th><th>From</th><th>To</th></tr></thead><tbody></tbody></table></div></section>
        <section><h2>Nodes</h2>
        <label>Show those with <input id="filter" type="search" placeholder="part of an address" autocomplete="off"></label>
        <div class="scroll"><table id="nodes"><thead><tr><th>Home address</th><th>Is at</th><th>State</th><th>Heard</th></tr></thead><tbody></tbody></table></div>
        <p id="nodes-note" class="note"></p></section>
        <noscript><p>This page needs JavaScript; <code>mat ims list</code>, <code>mat ims status</code> and the metrics say the same.</p></noscript>
        </main>
        </body>
        </html>

        """#
}
