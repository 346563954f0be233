"""The style sheet of the report: one column on a telephone, a grid on a desk, black on white on paper."""

CSS = """
:root{--ink:#1a1a1a;--soft:#555;--line:#d5d5d5;--tint:#f4f6f8;--warn:#D55E00;--good:#00694e}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:12px;color:var(--ink);background:#fff;
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;
 overflow-wrap:break-word}
code,.case b,td.text{overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.4em 0}
h2{font-size:1.25rem;margin:2em 0 .5em;padding-top:.4em;border-top:2px solid var(--ink)}
h3{font-size:1.05rem;margin:1.4em 0 .4em}
p,ul{margin:.5em 0;max-width:75ch}
small,.note,figcaption small{color:var(--soft);font-size:.88em}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2em 1.1em;max-width:none}
a{color:#0a5a8a}
.banner{border:2px solid var(--warn);padding:.5em .8em;font-weight:600}
.good{color:var(--good);font-weight:600}.bad{color:#a33f00;font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:1em 0}
.tile{background:var(--tint);padding:.6em .8em;border-left:4px solid #0072B2}
.tile b{display:block;font-size:1.45rem;line-height:1.2}
.tile span{display:block;color:var(--soft);font-size:.88em}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:18px;align-items:start}
figure{margin:0;max-width:520px;break-inside:avoid}
figcaption{font-weight:600;margin-bottom:.3em}
figure svg:not(.key){width:100%;height:auto;display:block}
svg text{font:12px system-ui,"Liberation Sans",Arial,sans-serif;fill:#1a1a1a}
.legend{list-style:none;padding:0;margin:.3em 0;display:flex;flex-wrap:wrap;gap:.1em 1em;font-size:.88em}
.legend li{display:flex;align-items:center;gap:.4em}.key{width:28px;height:14px;flex:none}
table{border-collapse:collapse;width:100%;margin:.6em 0;font-size:.92em;
 font-variant-numeric:tabular-nums}
th,td{padding:.32em .5em;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{border-bottom:2px solid var(--ink);font-weight:600;vertical-align:bottom}
th:first-child,td:first-child{text-align:left}
td.text,th.text{text-align:left}
tr.total td{border-top:2px solid var(--ink);font-weight:600}
td small{white-space:nowrap;display:block}tr.total small{font-weight:400}
td small.why{white-space:normal;min-width:7em}
.matrix{width:auto}.matrix td,.matrix th{text-align:center;min-width:2.7em;padding:.3em}
.matrix th{border:0;font-weight:600}
.matrix td{border:1px solid #fff;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.wide{overflow-x:auto}.wide td.text{min-width:8em}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px;align-items:start}
.case{border:1px solid var(--line);padding:.6em;break-inside:avoid;font-size:.9em}
.case img{max-width:100%;height:auto;display:block;margin:.3em 0;background:#000}
.case b{display:block}
.author{color:#a33f00}
dl{display:grid;grid-template-columns:minmax(9em,auto) 1fr;gap:.25em 1em;font-size:.92em}
dt{color:var(--soft)}dd{margin:0}
code{font:.86em ui-monospace,"Liberation Mono",monospace}
@media(max-width:640px){
 table.stack thead{position:absolute;clip:rect(0 0 0 0);width:1px;height:1px;overflow:hidden}
 table.stack,table.stack tbody,table.stack tr,table.stack td{display:block;width:100%}
 table.stack tr{border-bottom:2px solid var(--line);padding:.4em 0}
 table.stack td{border:0;display:flex;justify-content:space-between;gap:1em;text-align:right;padding:.12em 0}
 table.stack td:first-child{font-weight:600;text-align:left;font-size:1.02rem}
 table.stack td::before{content:attr(data-label);color:var(--soft);text-align:left;flex:none;max-width:50%}
 table.stack td:first-child::before{content:none}
 table.stack td.text{flex-wrap:wrap;gap:0 1em}table.stack td:empty{display:none}
 td small{display:inline;margin-left:.4em}
 dl{grid-template-columns:1fr}dd{margin-bottom:.4em}
 .matrix{font-size:.78em}.matrix td,.matrix th{min-width:2.2em;padding:.2em}
}
@media print{
 @page{size:A4;margin:14mm 12mm}
 html{font-size:10pt}body{font-size:10pt;max-width:none;padding:0}nav{display:none}
 h2{break-after:avoid}h3{break-after:avoid}tr,figure,.tile,.case{break-inside:avoid}
 thead{display:table-header-group}
 .charts{grid-template-columns:1fr 1fr}.tile{border:1px solid var(--line);border-left:4px solid #0072B2}
 table{font-size:8.2pt}th,td{padding:.25em .35em}
 .gallery{grid-template-columns:repeat(3,minmax(0,1fr))}.case img{max-height:48mm;width:auto}
 a{color:inherit;text-decoration:none}
}
"""
