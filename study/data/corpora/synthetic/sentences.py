"""Sentences of the synthetic corpus, parallel in English, German and Japanese, and written for it.

A plain sentence fits every emotion. A cue sentence contains a word that expresses one emotion; the splits share the cue
words, but no sentence. Japanese is in kana, the only script that espeak-ng reads.
"""

from __future__ import annotations

from typing import NamedTuple


class Sentence(NamedTuple):
    """One sentence in the three languages."""

    en: str
    de: str
    ja: str


PLAIN: dict[str, tuple[Sentence, ...]] = {
    "train": (
        Sentence("The bag is here.", "Die Tasche ist hier.", "かばんは ここです。"),
        Sentence("We go home now.", "Wir gehen jetzt heim.", "もう うちへ かえります。"),
        Sentence("The train comes at nine.", "Der Zug kommt um neun.", "でんしゃは くじに きます。"),
        Sentence("He reads the letter.", "Er liest den Brief.", "かれは てがみを よみます。"),
        Sentence("The door is open.", "Die Tür ist offen.", "ドアは あいています。"),
        Sentence("My brother called today.", "Mein Bruder rief heute an.", "きょう あにが でんわしました。"),
        Sentence("She works in town.", "Sie arbeitet in der Stadt.", "かのじょは まちで はたらきます。"),
        Sentence("The cup is full.", "Die Tasse ist voll.", "コップは いっぱいです。"),
        Sentence("It rained this morning.", "Heute früh hat es geregnet.", "けさ あめが ふりました。"),
        Sentence("They sit by the window.", "Sie sitzen am Fenster.", "まどの そばに すわります。"),
        Sentence("I bought two apples.", "Ich habe zwei Äpfel gekauft.", "りんごを ふたつ かいました。"),
        Sentence("The lamp is on.", "Die Lampe ist an.", "でんきが ついています。"),
        Sentence("You know this street.", "Du kennst diese Straße.", "この みちを しっていますね。"),
        Sentence("The class starts soon.", "Der Kurs beginnt bald.", "じゅぎょうが はじまります。"),
    ),
    "dev": (
        Sentence("The boat is ready.", "Das Boot ist fertig.", "ふねは できました。"),
        Sentence("We eat at six.", "Wir essen um sechs.", "ろくじに たべます。"),
        Sentence("He has the key.", "Er hat den Schlüssel.", "かれが かぎを もっています。"),
        Sentence("The bus stops there.", "Der Bus hält dort.", "バスは そこに とまります。"),
        Sentence("She wrote a book.", "Sie schrieb ein Buch.", "かのじょは ほんを かきました。"),
        Sentence("The shop is closed.", "Der Laden ist zu.", "みせは しまっています。"),
        Sentence("They live next door.", "Sie wohnen nebenan.", "となりに すんでいます。"),
    ),
    "test": (
        Sentence("The garden is wet.", "Der Garten ist nass.", "にわが ぬれています。"),
        Sentence("I met your aunt.", "Ich traf deine Tante.", "おばさんに あいました。"),
        Sentence("The plane left early.", "Das Flugzeug flog früh ab.", "ひこうきは はやく でました。"),
        Sentence("He wears a coat.", "Er trägt einen Mantel.", "かれは コートを きています。"),
        Sentence("The milk is cold.", "Die Milch ist kalt.", "ぎゅうにゅうは つめたいです。"),
        Sentence("We take the stairs.", "Wir nehmen die Treppe.", "かいだんで いきます。"),
        Sentence("Her phone is new.", "Ihr Telefon ist neu.", "かのじょの でんわは あたらしいです。"),
    ),
}

CUE: dict[str, dict[str, tuple[Sentence, ...]]] = {
    "train": {
        "neutral": (
            Sentence("All is normal here.", "Hier ist alles normal.", "ここは ふつうです。"),
            Sentence("The day was normal.", "Der Tag war normal.", "ふつうの いちにちです。"),
            Sentence("Same time as usual.", "Um die Zeit wie immer.", "じかんは いつもどおりです。"),
            Sentence("We ate as usual.", "Wir aßen wie immer.", "いつもどおり たべました。"),
            Sentence("Okay, take that one.", "Okay, nimm das da.", "りょうかい、それで いいです。"),
            Sentence("Okay, see you Monday.", "Okay, bis Montag.", "りょうかい、また げつようび。"),
        ),
        "joy": (
            Sentence("That is wonderful.", "Das ist wunderbar.", "それは すばらしいです。"),
            Sentence("What a wonderful day.", "Der Tag ist wunderbar.", "すばらしい ひです。"),
            Sentence("I am so happy.", "Ich bin so froh.", "とても うれしいです。"),
            Sentence("We are all happy.", "Wir sind alle froh.", "みんな うれしいです。"),
            Sentence("You are great.", "Du bist toll.", "きみは さいこうです。"),
            Sentence("Great, we won.", "Toll, wir haben gewonnen.", "さいこう、かちました。"),
        ),
        "surprise": (
            Sentence("Wow, look at that.", "Wow, sieh dir das an.", "わあ、あれを みて。"),
            Sentence("Wow, it is snowing.", "Wow, es schneit ja.", "わあ、ゆきです。"),
            Sentence("You really came back.", "Du bist wirklich zurück.", "ほんとうに もどったの。"),
            Sentence("So it really is yours.", "Das ist also wirklich deins.", "ほんとうに きみの なの。"),
            Sentence("No way, he did it.", "Unglaublich, er tat es.", "まさか、かれが やったの。"),
            Sentence("No way, so many.", "Unglaublich, so viele.", "まさか、こんなに たくさん。"),
        ),
        "anger": (
            Sentence("That was stupid.", "Das war blöd.", "それは ばかだ。"),
            Sentence("You are so stupid.", "Du bist so blöd.", "おまえは ばかだ。"),
            Sentence("I hate this noise.", "Ich hasse den Lärm.", "この おとは だいきらいだ。"),
            Sentence("I hate your lies.", "Ich hasse deine Lügen.", "きみの うそは だいきらいだ。"),
            Sentence("Shut up and go.", "Halt den Mund und geh.", "うるさい、でていけ。"),
            Sentence("Shut up, you there.", "Halt den Mund, du da.", "うるさい、そこの きみ。"),
        ),
        "sadness": (
            Sentence("I am so sad.", "Ich bin so traurig.", "とても かなしいです。"),
            Sentence("The news is sad.", "Die Nachricht ist traurig.", "かなしい しらせです。"),
            Sentence("He feels lonely.", "Er fühlt sich einsam.", "かれは さびしいです。"),
            Sentence("It is lonely here.", "Es ist einsam hier.", "ここは さびしいです。"),
            Sentence("There were only tears.", "Es gab nur Tränen.", "なみだ だけでした。"),
            Sentence("Her tears fell down.", "Ihre Tränen fielen.", "なみだが おちました。"),
        ),
        "disgust": (
            Sentence("Yuck, take it away.", "Igitt, nimm das weg.", "うえっ、もっていって。"),
            Sentence("Yuck, a dirty sock.", "Igitt, eine alte Socke.", "うえっ、きたない くつした。"),
            Sentence("This is disgusting.", "Das ist ekelhaft.", "これは きもちわるい。"),
            Sentence("The soup is disgusting.", "Die Suppe ist ekelhaft.", "スープが きもちわるい。"),
            Sentence("The kitchen stinks.", "Die Küche stinkt.", "だいどころが くさい。"),
            Sentence("Your jacket stinks.", "Deine Jacke stinkt.", "うわぎが くさい。"),
        ),
        "fear": (
            Sentence("Help, it is coming.", "Hilfe, es kommt näher.", "たすけて、くるよ。"),
            Sentence("Help, I am falling.", "Hilfe, ich falle.", "たすけて、おちる。"),
            Sentence("I am afraid tonight.", "Ich habe heute Angst.", "こんやは こわい。"),
            Sentence("He is afraid of it.", "Er hat Angst davor.", "かれは それが こわい。"),
            Sentence("That bridge is dangerous.", "Die Brücke ist gefährlich.", "はしは あぶない。"),
            Sentence("Too dangerous, come back.", "Zu gefährlich, komm zurück.", "あぶない、もどって。"),
        ),
    },
    "dev": {
        "neutral": (
            Sentence("The traffic is normal.", "Der Verkehr ist normal.", "みちは ふつうです。"),
            Sentence("He came as usual.", "Er kam wie immer.", "かれは いつもどおり きました。"),
            Sentence("Okay, I will wait.", "Okay, ich warte.", "りょうかい、まっています。"),
        ),
        "joy": (
            Sentence("Your song is wonderful.", "Dein Lied ist wunderbar.", "うたが すばらしいです。"),
            Sentence("Mother is happy now.", "Mutter ist jetzt froh.", "ははも うれしいです。"),
            Sentence("Great, he is coming.", "Toll, er kommt mit.", "さいこう、かれも きます。"),
        ),
        "surprise": (
            Sentence("Wow, you are tall.", "Wow, bist du groß.", "わあ、せが たかい。"),
            Sentence("She really said yes.", "Sie sagte wirklich ja.", "ほんとうに はいと いったの。"),
            Sentence("No way, it moved.", "Unglaublich, es bewegt sich.", "まさか、うごいたよ。"),
        ),
        "anger": (
            Sentence("The plan is stupid.", "Der Plan ist blöd.", "けいかくが ばかだ。"),
            Sentence("I hate this work.", "Ich hasse diese Arbeit.", "この しごとは だいきらいだ。"),
            Sentence("Shut up, I said.", "Halt den Mund, sage ich.", "うるさいと いったんだ。"),
        ),
        "sadness": (
            Sentence("The end was sad.", "Das Ende war traurig.", "かなしい おわりでした。"),
            Sentence("My house is lonely.", "Mein Haus ist einsam.", "いえが さびしいです。"),
            Sentence("I saw his tears.", "Ich sah seine Tränen.", "なみだを みました。"),
        ),
        "disgust": (
            Sentence("Yuck, old fish.", "Igitt, alter Fisch.", "うえっ、ふるい さかな。"),
            Sentence("This bed is disgusting.", "Das Bett ist ekelhaft.", "ベッドが きもちわるい。"),
            Sentence("The fridge stinks.", "Der Kühlschrank stinkt.", "れいぞうこが くさい。"),
        ),
        "fear": (
            Sentence("Help, someone is there.", "Hilfe, da ist jemand.", "たすけて、だれか いる。"),
            Sentence("I am afraid of dogs.", "Ich habe Angst vor Hunden.", "いぬが こわい。"),
            Sentence("The ice is dangerous.", "Das Eis ist gefährlich.", "こおりは あぶない。"),
        ),
    },
    "test": {
        "neutral": (
            Sentence("My week was normal.", "Meine Woche war normal.", "こんしゅうは ふつうでした。"),
            Sentence("She sits there as usual.", "Sie sitzt da wie immer.", "いつもどおり そこに います。"),
            Sentence("Okay, we use this.", "Okay, wir nutzen das.", "りょうかい、これを つかいます。"),
        ),
        "joy": (
            Sentence("The view is wonderful.", "Die Aussicht ist wunderbar.", "けしきが すばらしいです。"),
            Sentence("The kids are happy.", "Die Kinder sind froh.", "こどもも うれしいです。"),
            Sentence("Great, a free evening.", "Toll, ein freier Abend.", "さいこう、やすみです。"),
        ),
        "surprise": (
            Sentence("Wow, a whole cake.", "Wow, eine ganze Torte.", "わあ、おおきな ケーキ。"),
            Sentence("They really sold it.", "Sie haben es wirklich verkauft.", "ほんとうに うったの。"),
            Sentence("No way, that fast.", "Unglaublich, so schnell.", "まさか、もう おわり。"),
        ),
        "anger": (
            Sentence("He is so stupid.", "Er ist so blöd.", "かれは ばかだ。"),
            Sentence("I hate that man.", "Ich hasse diesen Mann.", "あの おとこは だいきらいだ。"),
            Sentence("Shut up now.", "Halt den Mund jetzt.", "うるさい、もう やめろ。"),
        ),
        "sadness": (
            Sentence("That film was sad.", "Der Film war traurig.", "かなしい えいがでした。"),
            Sentence("Father is lonely now.", "Vater ist jetzt einsam.", "ちちは さびしいです。"),
            Sentence("Tears in her eyes.", "Tränen in ihren Augen.", "めに なみだが あります。"),
        ),
        "disgust": (
            Sentence("Yuck, hair again.", "Igitt, schon wieder Haare.", "うえっ、また かみの け。"),
            Sentence("The floor is disgusting.", "Der Boden ist ekelhaft.", "ゆかが きもちわるい。"),
            Sentence("His dog stinks.", "Sein Hund stinkt.", "かれの いぬが くさい。"),
        ),
        "fear": (
            Sentence("Help, it has stopped.", "Hilfe, es steht still.", "たすけて、とまった。"),
            Sentence("She is afraid at night.", "Sie hat nachts Angst.", "よるは こわい。"),
            Sentence("It is dangerous outside.", "Draußen ist es gefährlich.", "そとは あぶない。"),
        ),
    },
}
