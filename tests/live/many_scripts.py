"""Sentences in some forty scripts, for comparing token ids: letters with and without marks in their
usual order, digits and punctuation of their own, and some as other systems write them (composed or
taken apart, half or full width, without spaces)."""

import unicodedata

SENTENCES = {
    "Latin": "Die Fähre fährt um 7 Uhr ab; ça coûte 3,50 € – İstanbul'da ŁÓDŹ, ťažký ĳs ﬁn.",
    "Vietnamese": "Chuyến phà khởi hành lúc bảy giờ; người Việt Nam ở Đà Nẵng và Huế.",
    "Greek": "Το πλοίο φεύγει στις επτά· ὁ ἄνθρωπος ᾠδή ΟΔΥΣΣΕΥΣ; Ά.",
    "Cyrillic": "Паром отходит в семь часов, ёлка и Київ; ђаци, Ѓорче, ӱӧ ӣ.",
    "Armenian": "Լաստանավը մեկնում է ժամը յոթին։ Հայաստան, և այլն՝ «բարև»։",
    "Georgian": "ბორანი შვიდ საათზე გადის. ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ, ჟ.",
    "Hebrew": "המעבורת יוצאת בשבע. בְּרֵאשִׁית בָּרָא אֱלֹהִים שָׁלוֹם ״כן״.",
    "Arabic": "تغادر العبّارة في الساعة ٧. مُحَمَّدٌ، لا إله؟ ﷺ ﻻ آمين.",
    "Persian": "کشتی ساعت هفت می‌رود؛ ۱۲۳ پژوهش‌گر، گچ.",
    "Urdu": "فیری سات بجے روانہ ہوتی ہے۔ ڈاکٹر، ٹھیک ہے؟",
    "Syriac": "ܫܠܡܐ ܥܠܝܟܘܢ܂ ܐܠܦܐ ܢܦܩܐ ܒܫܒܥ ܫܥܝ̈ܢ.",
    "Thaana": "ފެރީ ހަތެއްޖަހާއިރު ފުރާނެ، ދިވެހި.",
    "NKo": "ߒߞߏ ߞߊ߲ ߞߵߊ߬ ߛߓߍ߫ ߁߂߃.",
    "Devanagari": "नौका सात बजे चलती है। क़िताब ज़रूर, श्रृंखला क्षत्रिय ज्ञान १२३ ॐ।",
    "Bengali": "ফেরি সাতটায় ছাড়ে। ড় ঢ় য়, কো ৌ বাংলা ৭৮৯, শ্রী।",
    "Gurmukhi": "ਕਿਸ਼ਤੀ ਸੱਤ ਵਜੇ ਚੱਲਦੀ ਹੈ। ਪੰਜਾਬੀ ੴ ਸ਼੍ਰੀ।",
    "Gujarati": "હોડી સાત વાગ્યે ઊપડે છે. ગુજરાતી ક્ષત્રિય ૧૨૩.",
    "Oriya": "ଫେରି ସାତଟାରେ ଛାଡେ। ଓଡ଼ିଆ ଭାଷା କ୍ଷୁଦ୍ର ୧୨୩।",
    "Tamil": "படகு ஏழு மணிக்குப் புறப்படும். கௌ கொ போ ஸ்ரீ தமிழ்நாடு ௧௨.",
    "Telugu": "పడవ ఏడు గంటలకు బయలుదేరుతుంది. శ్రీ క్షేత్రం తెలుగు ౧౨.",
    "Kannada": "ದೋಣಿ ಏಳು ಗಂಟೆಗೆ ಹೊರಡುತ್ತದೆ. ಶ್ರೀ ಕೋಟೆ ಕನ್ನಡ ೧೨.",
    "Malayalam": "കടത്തുവള്ളം ഏഴു മണിക്ക് പുറപ്പെടും. ശ്രീ ൻ ർ ൽ ൾ കൊ മലയാളം.",
    "Sinhala": "තොටුපළ යාත්‍රාව හතට පිටත් වේ. ශ්‍රී ලංකා කෝපි.",
    "Thai": "เรือเฟอร์รี่ออกเวลาเจ็ดโมง น้ำ ก็ ๗ โมงเช้า ภาษาไทยไม่มีช่องว่าง",
    "Lao": "ເຮືອຂ້າມຟາກອອກເວລາເຈັດໂມງ ນ້ຳ ໝາ ໑໒໓.",
    "Tibetan": "གྲུ་གཟིངས་ཆུ་ཚོད་བདུན་པར་འགྲོ། བོད་ཡིག ཀྵ ༡༢༣།",
    "Burmese": "ကူးတို့သင်္ဘော ခုနစ်နာရီတွင် ထွက်သည်။ မြန်မာဘာသာ ၁၂၃။",
    "Khmer": "សាឡាងចេញនៅម៉ោងប្រាំពីរ។ ភាសាខ្មែរ ស្ត្រី ១២៣។",
    "Ethiopic": "ጀልባው በሰባት ሰዓት ይነሳል። ኢትዮጵያ ፩፪፫፤",
    "Mongolian": "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ᠂ ᠪᠢᠴᠢᠭ᠌ ᠶᠢᠨ᠃",
    "Cherokee": "ᏥᏳ ᎦᎵᏉᎩ ᎢᏳᏟᎶᏓ ᎠᏂᎩᎠ. Ꮳꮃꭹ.",
    "Canadian syllabics": "ᐅᒥᐊᖅ ᓯᑕᒪᐅᔪᖓᖕᓂ ᐊᐅᓪᓚᖅᑐᖅ. ᐃᓄᒃᑎᑐᑦ.",
    "Hiragana and Katakana": "フェリーは7時に出ます。がぎぐ パピプ ヴァイオリン ﾊﾟｿｺﾝ ｶﾞ ㍍ 々ゞ",
    "Han": "渡船七点开。東京都渋谷区、臺灣，㊗️ 龍龘𠮷野家 〇 ﾞ 全角ＡＢＣ１２３",
    "Hangul": "배는 일곱 시에 떠난다. 한국어 뷁 ㄱㄴㄷ ㈜ 가나다",
    "Bopomofo": "ㄉㄨˋ ㄔㄨㄢˊ ㄑㄧ ㄉㄧㄢˇ ㄎㄞ",
    "Yi": "ꆈꌠꁱꂷ ꉢꇬ ꊰꋒ.",
    "Javanese": "ꦥꦿꦲꦸ ꦩꦁꦏꦠ꧀ ꦗꦩ꧀ ꦥꦶꦠꦸ꧉",
    "Tifinagh": "ⵜⴰⵏⴰⵡⵜ ⴰⵔ ⵜⴼⴼⵖ ⵙⴰⵜ ⵜⵙⵔⴰⴳ.",
    "Gothic": "𐍃𐌺𐌹𐍀 𐌿𐍃𐌲𐌰𐌲𐌲𐌹𐌸.",
    "Symbols": "7 h → 19¼ ½ № ™ ∑∞≠ 🚢👩‍👩‍👧🏽🇩🇪 ①㉑ ﷽ x² ‽ … “q” 𝒜𝔅",
}


def texts():
    """Each sentence as it is, in the four normal forms, in upper case and without spaces; and pairs
    of scripts side by side."""
    for sentence in SENTENCES.values():
        yield sentence
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            yield unicodedata.normalize(form, sentence)
        yield sentence.upper()
        yield sentence.replace(" ", "")
    every = list(SENTENCES.values())
    for first, second in zip(every, every[1:]):
        yield first[:20] + second[:20]
