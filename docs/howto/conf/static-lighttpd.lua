-- A published folder: the compressed file beside, where the browser takes it, and how long
-- each answer may be kept.
local r = lighty.r
local url, path = r.req_attr["uri.path"], r.req_attr["physical.path"]
local headers = r.resp_header
headers["X-Content-Type-Options"] = "nosniff"

-- What Outgrow remembers of releases, and dotfiles, are nobody's business.
local dotfile = url:gsub("^/%.well%-known/", "/"):find("/%.")
local found = lighty.c.stat(path)
if found and found.is_dir and url:find("/$") then
    path = path:gsub("/*$", "/index.html")
    found = lighty.c.stat(path)
    r.req_attr["physical.path"] = path
end
if dotfile or url:find("/outgrow%-publish/") or not found then
    -- Never kept: it may be there in a moment.
    headers["Cache-Control"] = "no-store"
    headers["Content-Type"] = "text/plain"
    r.resp_body:set({ "Not found\n" })
    return 404
end
if not found.is_file then
    return 0
end

-- What has a hash in its name is kept for ever, pages are asked for each time.
local name = path:match("[^/]*$")
local stamp = name:match("%.(%x+)%.[^.]*$") or name:match("%.(%x+)$") or ""
local forever = #stamp == 12 and not stamp:find("%u")
headers["Cache-Control"] = forever and "public, max-age=31536000, immutable" or "no-cache"

-- Modules, fonts, and what has an `integrity` are fetched with CORS.
local shared = { css = 1, js = 1, mjs = 1, cjs = 1, wasm = 1, eot = 1, otf = 1, ttf = 1,
    woff = 1, woff2 = 1 }
if shared[(name:match("%.([^.]*)$") or ""):lower()] then
    headers["Access-Control-Allow-Origin"] = "*"
end

-- The encodings that the browser takes: those without a weight of zero.
headers["Vary"] = "Accept-Encoding"
local taken = {}
for part in ((r.req_header["Accept-Encoding"] or ""):lower() .. ","):gmatch("([^,]*),") do
    local word = part:match("^%s*([^%s;]+)")
    if word and not part:find("q=0%.?0*%s*$") then
        taken[word] = true
    end
end
for _, form in ipairs({ { "zstd", ".zst" }, { "br", ".br" }, { "gzip", ".gz" } }) do
    local beside = taken[form[1]] and lighty.c.stat(path .. form[2])
    if beside and beside.is_file then
        headers["Content-Type"] = found["content-type"]
        headers["Content-Encoding"] = form[1]
        r.req_attr["physical.path"] = path .. form[2]
        break
    end
end
return 0
